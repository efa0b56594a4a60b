"""Fault maps of parameters: counts against the binomial law and the toolbox, lists, bad options."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from progip.contracts import check_fault_model
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.bit_error_rate import BitErrorRate
from progip.fault_models.listed import ListedFaults
from progip.fault_models.metadata_bit import MetadataBit, ParameterMetadataBit
from progip.fault_models.parameter_bit import ParameterBit
from progip.fault_models.parameters import Memory, parameter_sites
from progip.number_formats.block_fp import BlockFP
from progip.number_formats.integer import Integer
from progip.storage.fault_lists import read_list

#: the weights of ResNet-20 (option A): convolutions and the last layer
SIZES = [432, *[2304] * 6, 4608, *[9216] * 5, 18432, *[36864] * 5, 640]
SITES = [
    Site(f"conv{i}", 0, "Conv2d", (n,), n, 1, ("Conv2d",), parameter="weight")
    for i, n in enumerate(SIZES)
]


def faults(model: BitErrorRate, maps: int, sites: list[Site] = SITES) -> np.ndarray:
    """Faulty bits of each map."""
    plan = model.plan(sites, 1, 0, "cell", 0, maps)
    hits = model.hits(sites, plan, 0, "cell")
    bits = np.unpackbits(hits.mask.view(np.uint8)).reshape(-1, 32).sum(1)
    return np.bincount(hits.row, bits, minlength=maps)


@pytest.mark.parametrize(
    ("rate", "toolbox"), [(1e-7, 0), (3e-7, 0), (1e-6, 5), (3e-6, 16), (1e-5, 71), (3e-5, 248)]
)
def test_counts_of_the_toolbox(rate: float, toolbox: int) -> None:
    model = BitErrorRate(name="rate", rate=rate, count="floor_per_tensor")
    assert sum(SIZES) == 268_336
    counts = faults(model, 5)
    assert (counts <= toolbox).all()  # a bit drawn twice is back where it was
    assert counts.max() == toolbox
    rounded = BitErrorRate(name="rate", rate=rate, count="rounded")
    assert (faults(rounded, 5) == round(sum(SIZES) * 32 * rate)).all()


def test_binomial_counts_and_uniform_places() -> None:
    rate, maps = 2e-5, 300
    model = BitErrorRate(name="rate", rate=rate)
    counts = faults(model, maps)
    bits = sum(SIZES) * 32
    assert stats.binomtest(int(counts.sum()), maps * bits, rate).pvalue > 1e-3
    spread = stats.binom(bits, rate).var()
    assert stats.chi2(maps - 1).cdf((maps - 1) * counts.var(ddof=1) / spread) == pytest.approx(
        0.5, abs=0.4995
    )
    plan = model.plan(SITES, 1, 0, "cell", 0, maps)
    hits = model.hits(SITES, plan, 0, "cell")
    by_site = np.bincount(hits.site, minlength=len(SIZES))
    assert stats.chisquare(by_site, by_site.sum() * np.array(SIZES) / sum(SIZES)).pvalue > 1e-3
    one = hits.mask[np.log2(hits.mask) % 1 == 0]
    by_bit = np.bincount(np.log2(one).astype(int), minlength=32)
    assert stats.chisquare(by_bit).pvalue > 1e-3


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_rate(rate: float) -> None:
    model = BitErrorRate(name="rate", rate=rate)
    sites = SITES[:1]
    assert (faults(model, 3, sites) == rate * 32 * SIZES[0]).all()


def test_effects() -> None:
    sites = SITES[:1]
    for effect, mask, clear in (("stuck_at_0", False, True), ("stuck_at_1", True, True)):
        model = ParameterBit(name="bit", effect=effect)
        check_fault_model(model)
        hits = model.hits(sites, model.plan(sites, 1, 0, "cell", 0, 50), 0, "cell")
        assert hits.clear is not None
        assert (hits.clear > 0).all() == clear
        assert (hits.mask == (hits.clear if mask else 0)).all()


def test_metadata_registers() -> None:
    code = Integer(name="int8", width=8, scale=2.0)
    sites = [Site("conv", 0, "Conv2d", (4, 6, 6), 144, 1, ("Conv2d",), format=code)]
    model = MetadataBit(name="metadata")
    check_fault_model(model, sites)
    (register,) = model.select(sites)
    assert (register.neurons, register.bits, register.field(3)) == (1, 32, "metadata")
    plain = [Site("conv", 0, "Conv2d", (4, 6, 6), 144, 1, ("Conv2d",))]
    with pytest.raises(ProgipError, match="'fp32', which has no metadata"):
        model.select(plain)


@pytest.mark.parametrize("effect", ["flip", "stuck_at_0", "stuck_at_1"])
def test_metadata_of_parameters(effect: str) -> None:
    """By hand: another exponent in its register scales a channel by a power of 2."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3))
    network = network.to(memory_format=torch.channels_last)
    code = BlockFP(name="bfp", width=10, exponent=5, block="channel", quantise=["weights"])
    code.prepare(network, list)
    sites = parameter_sites(network, {"0": 1, "1": 1})
    model = ParameterMetadataBit(name="metadata", effect=effect)
    check_fault_model(model, sites)
    chosen = model.select(sites)
    assert [(site.layer, site.neurons, site.bits) for site in chosen] == [("0", 3, 5), ("1", 2, 5)]
    plan = model.plan(chosen, 1, 0, "cell", 0, 40)
    memory = Memory(network, chosen)
    for number in range(len(plan)):
        row = plan.slice(number, 1)
        (at,), (block,), (bit,) = (row[n].to_pylist() for n in ("layer", "neuron", "bit"))
        weight = network[int(at)].weight.detach()
        clean = weight.clone()
        own = int(code.metadata(clean[None])[0, block])
        faulty = {"flip": own ^ 1 << bit, "stuck_at_0": own & ~(1 << bit)}.get(
            effect, own | 1 << bit
        )
        with memory.faulty(model.hits(chosen, row, 0, "cell")) as written:
            expected = clean.clone()
            expected[block] *= 2.0 ** (faulty - own)
            assert torch.equal(weight, expected)
            assert (written.before[0], written.after[0]) == (own, faulty)
        assert torch.equal(weight, clean)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"parameters": []}, "name at least one"),
        ({"images_per_map": 0}, "at least one image"),
        ({"effect": "burn"}, "not one of flip, stuck_at_0, stuck_at_1"),
        ({"bits": [3], "fields": ["sign"]}, "bits or fields, not both"),
    ],
)
def test_bad_options(options: dict, why: str) -> None:
    with pytest.raises(ProgipError, match=why):
        ParameterBit(name="bit", **options)


def test_bad_rates() -> None:
    with pytest.raises(ProgipError, match="not a probability"):
        BitErrorRate(name="rate", rate=2)
    with pytest.raises(ProgipError, match="not one of binomial"):
        BitErrorRate(name="rate", count="all")


def test_absent_parameters_and_fields() -> None:
    with pytest.raises(ProgipError, match="no chosen layer has a parameter 'bias'"):
        ParameterBit(name="bit", parameters=["bias"]).select(SITES)
    model = ParameterBit(name="bit", fields=["scale"])
    with pytest.raises(ProgipError, match="no field scale of number_format 'fp32'"):
        model.plan(SITES, 1, 0, "cell", 0, 1)
    with pytest.raises(ProgipError, match="images_per_map=9, and there are 4"):
        ParameterBit(name="bit", images_per_map=9).rows_per_map(4)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b\n1,2\n", "no column Layer"),
        ("Layer,TensorIndex,Bit\n", "lists no fault"),
        ('Layer,TensorIndex,Bit\nconv0,"(x)",3\n', "line 2: TensorIndex is"),
        ('Layer,TensorIndex,Bit\nconv0,"(1,)",2.5\n', "line 2: Bit is"),
    ],
)
def test_bad_lists(tmp_path, text: str, why: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ProgipError, match=why):
        read_list(path)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"layers": "conv.*"}, "layers has no effect"),
        ({"skip_last": True}, "skip_last has no effect"),
        ({"layer_types": ["Linear"]}, "layer_types has no effect"),
        ({"parameters": ["weight", "bias"]}, "values of one parameter"),
        ({"file": ""}, "give the list"),
    ],
)
def test_options_of_lists(options: dict, why: str) -> None:
    with pytest.raises(ProgipError, match=why):
        ListedFaults(**{"name": "listed", "file": "list.csv", **options})


def test_places_and_bits_of_lists(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('Layer,TensorIndex,Bit\nmodule.conv0,"(1, 2)",9\nconv1,"(0, 3)",0\n')
    listed = read_list(path)
    shapes = {"conv0": (2, 3), "conv1": (1, 4)}
    assert listed.flat(shapes).tolist() == [5, 3]
    with pytest.raises(ProgipError, match="line 2: Bit is 9; codes of int8 have bits 0 to 7"):
        listed.check_bits(8, "int8")
    with pytest.raises(ProgipError, match=r"line 3: TensorIndex \(0, 3\) lies outside \(1, 3\)"):
        listed.check_places({"conv0": (2, 3), "conv1": (1, 3)})
    with pytest.raises(ProgipError, match="line 3: the network has no such parameter"):
        listed.check_places({"conv0": (2, 3)})

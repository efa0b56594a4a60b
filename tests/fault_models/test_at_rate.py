"""Faults at a rate against their laws: how many, where, which bits."""

import importlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy.stats import binom, chisquare, kstest

from progip import records
from progip.errors import ProgipError
from progip.fault_models.at_rate import AtRate
from progip.fault_models.base import Site, digests
from progip.fault_models.flipped_bits import Burst, DistinctBits, OneBit, WordError

SITES = [
    Site("conv1", 0, "Conv2d", (4, 8, 8), 256, 1000),
    Site("block.conv2", 0, "Conv2d", (8, 4, 4), 128, 2000),
    Site("block.conv2", 1, "Conv2d", (8, 4, 4), 128, 2000),
    Site("fc", 0, "Linear", (10,), 10, 80),
]
NEURONS = 522
CONF = Path(__file__).parents[2] / "conf" / "fault_model"


def large(neurons: int) -> list[Site]:
    return [
        Site("a", 0, "Conv2d", (neurons // 2,), neurons // 2, 1),
        Site("b", 0, "Conv2d", (neurons - neurons // 2,), neurons - neurons // 2, 1),
    ]


def drawn(model: AtRate, runs: int, sites: list[Site] = SITES, start: int = 0, seed: int = 3):
    plan = model.plan(sites, 50, seed, "k", start, start + runs)
    return model.hits(sites, plan, seed, "k")


@pytest.mark.parametrize("rate", [1e-3, 0.02, 0.3, 0.9])
def test_numbers_of_hits_are_binomial(rate: float) -> None:
    runs = 5000
    counts = np.bincount(drawn(OneBit(name="f", rate=rate), runs).row, minlength=runs)
    values = np.arange(NEURONS + 1)
    expected = runs * binom.pmf(values, NEURONS, rate)
    seen = np.bincount(counts, minlength=NEURONS + 1)
    keep = expected >= 5  # the tails together
    table = [np.append(part[keep], part[~keep].sum()) for part in (seen, expected)]
    table = [
        part[np.append(np.ones(keep.sum(), bool), expected[~keep].sum() > 1)] for part in table
    ]
    assert chisquare(table[0], table[1] * table[0].sum() / table[1].sum()).pvalue > 1e-4


@pytest.mark.parametrize(
    ("rate", "neurons", "runs"), [(1e-8, 2_000_000_000, 500), (1e-8, 300_000, 20_000),
                                  (1e-4, 5_000_000, 60)]
)  # fmt: skip
def test_expected_counts_hold_on_networks_of_any_size(rate: float, neurons: int, runs: int) -> None:
    hits = drawn(DistinctBits(name="f", rate=rate), runs, large(neurons))
    total = runs * neurons
    assert binom.cdf(len(hits.row), total, rate) > 1e-4
    assert binom.sf(len(hits.row) - 1, total, rate) > 1e-4
    if len(hits.row) > 100:
        place = (hits.neuron + hits.site * (neurons // 2)) / neurons
        assert kstest(place, "uniform").pvalue > 1e-4


def test_places_are_uniform_distinct_and_independent_of_each_other() -> None:
    hits = drawn(OneBit(name="f", rate=0.02), 5000)
    starts = np.cumsum([0] + [s.neurons for s in SITES])
    flat = starts[hits.site] + hits.neuron
    assert all(0 <= n < SITES[s].neurons for n, s in zip(hits.neuron, hits.site, strict=True))
    assert chisquare(np.bincount(flat, minlength=NEURONS)).pvalue > 1e-4
    assert len(np.unique(hits.row * NEURONS + flat)) == len(flat)
    assert (np.diff(hits.row) >= 0).all()
    hit = np.zeros((5000, NEURONS), bool)
    hit[hits.row, flat] = True
    neighbours = (hit[:, 1:] & hit[:, :-1]).sum()  # both of two neighbours: rate squared
    assert 1e-4 < binom.cdf(neighbours, 5000 * (NEURONS - 1), 0.02**2) < 1 - 1e-4


def test_all_and_nothing() -> None:
    assert len(drawn(OneBit(name="f", rate=0.0), 20).row) == 0
    hits = drawn(OneBit(name="f", rate=1.0), 3)
    assert hits.row.tolist() == [r for r in range(3) for _ in range(NEURONS)]
    assert hits.neuron.tolist() == [n for s in SITES for n in range(s.neurons)] * 3


@given(st.integers(0, 2**40), st.integers(0, 300), st.sampled_from([1e-3, 0.03]))
def test_hits_of_a_run_depend_on_seed_key_and_run_alone(seed: int, run: int, rate: float) -> None:
    model = WordError(name="f", rate=rate)
    plan = model.plan(SITES, 50, seed, "k", 0, 301)
    assert plan["sample_index"].to_numpy()[run] == run % 50
    together = model.hits(SITES, plan, seed, "k")
    alone = model.hits(SITES, plan.slice(run, 1), seed, "k")
    mine = together.row == run
    for whole, single in zip(together[1:4], alone[1:4], strict=True):
        np.testing.assert_array_equal(whole[mine], single)
    assert digests(together, 301)[run] == digests(alone, 1)[0]
    assert (digests(alone, 1)[0] == 0) == (len(alone.row) == 0)
    backwards = model.hits(SITES, plan.take(pa.array(np.arange(300, -1, -1))), seed, "k")
    np.testing.assert_array_equal(backwards.mask[backwards.row == 300 - run], alone.mask)
    other = model.hits(SITES, plan, seed, "other")
    assert not np.array_equal(other.neuron, together.neuron)


def test_a_slow_way_to_the_same_law() -> None:
    """Dense Bernoulli masks: what the sparse drawing replaces."""
    rate, runs = 0.01, 4000
    dense = np.random.default_rng(5).random((runs, NEURONS)) < rate
    sparse = np.bincount(drawn(OneBit(name="f", rate=rate), runs).row, minlength=runs)
    top = 14
    table = np.array(
        [np.bincount(np.minimum(c, top), minlength=top + 1) for c in (dense.sum(1), sparse)]
    )
    pooled = table.sum(0) / 2
    assert chisquare(table.ravel(), np.tile(pooled, 2), ddof=top).pvalue > 1e-4


def bits_of(mask: np.ndarray) -> np.ndarray:
    """(hits, 32) booleans."""
    return (mask[:, None] >> np.arange(32, dtype=np.uint32)) & 1 == 1


@pytest.mark.parametrize("number", [1, 6, 32])
def test_distinct_bits(number: int) -> None:
    flipped = bits_of(drawn(DistinctBits(name="f", rate=0.2, number=number), 400).mask)
    assert (flipped.sum(1) == number).all()
    assert chisquare(flipped.sum(0)).pvalue > 1e-4
    if number == 6:  # every pair equally often: C(30, 4) / C(32, 6)
        pairs = np.array(
            [(flipped[:, i] & flipped[:, j]).mean() for i in range(32) for j in range(i)]
        )
        assert np.allclose(pairs, 27_405 / 906_192, atol=0.005)


def word_probabilities(spread: float) -> np.ndarray:
    """(32, 32): probability of a run of flipped bits from low to high, by enumeration."""
    law = np.zeros((32, 32))
    for centre in range(32):
        below = [spread**m * (1 - spread if m < centre else 1) for m in range(centre + 1)]
        up = 31 - centre
        above = [spread**m * (1 - spread if m < up else 1) for m in range(up + 1)]
        for low, p in enumerate(below):
            for high, q in enumerate(above):
                law[centre - low, centre + high] += p * q / 32
    return law


@pytest.mark.parametrize("spread", [0.0, 0.4, 0.75, 1.0])
def test_word_error_follows_its_law(spread: float) -> None:
    flipped = bits_of(drawn(WordError(name="f", rate=0.2, spread=spread), 400).mask)
    low, high = flipped.argmax(1), 31 - flipped[:, ::-1].argmax(1)
    assert (flipped.sum(1) == high - low + 1).all()  # one run of adjacent bits
    law = word_probabilities(spread)
    assert law.sum() == pytest.approx(1)
    seen = np.zeros((32, 32))
    np.add.at(seen, (low, high), 1)
    expected = law * len(low)
    assert (seen[law == 0] == 0).all()
    some = expected >= 5
    parts = [np.append(part[some], part[~some].sum()) for part in (seen, expected)]
    parts = [
        part[np.append(np.ones(some.sum(), bool), expected[~some].sum() > 1)] for part in parts
    ]
    if len(parts[0]) > 1:
        assert chisquare(parts[0], parts[1] * parts[0].sum() / parts[1].sum()).pvalue > 1e-4
    bits = np.subtract.outer(np.arange(32), np.arange(32))
    mean = (law * (1 - bits)).sum()
    assert flipped.sum(1).mean() == pytest.approx(mean, abs=4 * flipped.sum(1).std() / 200)
    if spread == 0.75:
        assert mean == pytest.approx(6.25 + 0.75**33)  # closed form, the source's word error


def test_burst_and_one_bit() -> None:
    flipped = bits_of(drawn(Burst(name="f", rate=0.2, length=5), 400).mask)
    low, high = flipped.argmax(1), 31 - flipped[:, ::-1].argmax(1)
    assert (high - low == 4).all()
    assert (flipped.sum(1) == 5).all()
    assert chisquare(np.bincount(low, minlength=28)).pvalue > 1e-4
    assert bits_of(drawn(Burst(name="f", rate=0.1, length=32), 5).mask).all()
    flipped = bits_of(drawn(OneBit(name="f", rate=0.2, bits=[3, 30, 31]), 400).mask)
    assert (flipped.sum(1) == 1).all()
    counts = flipped.sum(0)
    assert set(np.flatnonzero(counts)) == {3, 30, 31}
    assert chisquare(counts[[3, 30, 31]]).pvalue > 1e-4


def test_hits_are_pinned() -> None:
    """A change here changes every published campaign: it needs a new schema version."""
    hits = drawn(DistinctBits(name="f", rate=0.004), 2)
    assert [h.tolist() for h in hits[:4]] == PINNED


PINNED = [
    [0, 0, 0, 0, 0, 1, 1],
    [0, 0, 1, 1, 2, 1, 2],
    [135, 242, 11, 74, 27, 103, 26],
    [10817537, 697303042, 268501075, 2826962048, 151520514, 412221441, 1084192],
]


def test_the_plan_names_no_neuron() -> None:
    plan = OneBit(name="f", rate=0.1).plan(SITES, 7, 0, "k", 5, 25)
    assert plan.schema == records.PLAN
    assert set(plan["layer"].to_pylist()) == {""}
    assert plan["run_id"].to_pylist() == list(range(5, 25))
    assert plan["sample_index"].to_pylist() == [i % 7 for i in range(5, 25)]
    with pytest.raises(ProgipError, match="use sampling=uniform"):
        OneBit(name="f").atoms(SITES)


@pytest.mark.parametrize(
    ("cls", "options", "named"),
    [
        (OneBit, {"rate": 1.5}, r"rate=1\.5 is not a probability"),
        (OneBit, {"rate": -1e-9}, "rate=-1e-09"),
        (OneBit, {"rate": float("nan")}, "rate=nan"),
        (OneBit, {"bits": [32]}, r"0\.\.31"),
        (DistinctBits, {"number": 0}, "number=0"),
        (DistinctBits, {"number": 33}, "number=33"),
        (Burst, {"length": 40}, "length=40"),
        (WordError, {"spread": 1.2}, r"spread=1\.2"),
        (WordError, {"layers": "("}, "regular expression"),
    ],
)
def test_wrong_options_are_named(cls: type[AtRate], options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        cls(name="f", **options)


def test_each_file_names_its_rate() -> None:
    """Several rates in one sweep are several cells: the name, and so the folder, holds the rate."""
    found = 0
    for path in sorted(CONF.glob("*.yaml")):
        section = OmegaConf.load(path)
        module, _, cls = section._target_.rpartition(".")
        if issubclass(getattr(importlib.import_module(module), cls), AtRate):
            found += 1
            names = set()
            for rate in (1e-6, 2.5e-6, 0.01):
                section.rate = rate
                names.add(OmegaConf.create({"fault_model": section}).fault_model.name)
            assert names == {f"{path.stem}_{r}" for r in ("1e-06", "2.5e-06", "0.01")}
    assert found == 4

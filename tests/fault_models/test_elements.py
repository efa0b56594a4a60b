"""Zeroed, replaced and flipped elements: what becomes of tensors, evenness, and errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from progip.campaign.replay import replay
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.engine.flipping import BatchFaults
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.elements import (
    Elements,
    FlippedElements,
    RandomElements,
    ZeroedElements,
)
from progip.number_formats.fp32 import FP32
from progip.report.writing import write_report

ROOT = Path(__file__).resolve().parents[2]
SITES = [
    Site("conv1", 0, "Conv2d", (4, 5, 5), 100, 1000),
    Site("conv2", 0, "Conv2d", (8, 3, 3), 72, 2000),
    Site("fc", 0, "Linear", (10,), 10, 80),
]
RUNS = 12


def tensors() -> dict[tuple[str, int], torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {s.key: torch.randn(RUNS, *s.shape, generator=draw) + 2 for s in SITES}


def faulty(model: Elements) -> dict[tuple[str, int], np.ndarray]:
    """(rows, neurons) of every site after a batch of runs, channels first."""
    plan = model.plan(SITES, 9, 0, "cell", 0, RUNS)
    faults = BatchFaults(SITES, RUNS, "first_forward", torch.device("cpu"))
    faults.prepare(model.hits(SITES, plan, 0, "cell"))
    return {
        key: (faults.flip(key, tensor.clone()) if key in faults else tensor).flatten(1).numpy()
        for key, tensor in tensors().items()
    }


def test_a_share_of_one_layer_becomes_zero() -> None:
    model = ZeroedElements(name="z", share=0.25)
    found, clean = faulty(model), tensors()
    for row in range(RUNS):
        changed = {}
        for site in SITES:
            before = clean[site.key][row].flatten().numpy()
            after = found[site.key][row]
            differs = before != after
            assert (after[differs] == 0).all()
            changed[site.layer] = int(differs.sum())
        (hit,) = [layer for layer, count in changed.items() if count]
        size = next(site.neurons for site in SITES if site.layer == hit)
        assert changed[hit] == size // 4


def test_replaced_values_are_uniform_in_all_layers() -> None:
    found, clean = faulty(RandomElements(name="r", number=5, at_once=None)), tensors()
    values = []
    for site in SITES:
        before = clean[site.key].flatten(1).numpy()
        differs = before != found[site.key]
        assert (differs.sum(1) == 5).all()
        values += list(found[site.key][differs])
    assert min(values) >= 0
    assert max(values) < 1
    assert chisquare(np.histogram(values, 4, (0, 1))[0]).pvalue > 1e-4


def test_each_hit_element_flips_one_bit() -> None:
    found, clean = faulty(FlippedElements(name="f", number=3, at_once=2, bits=[3, 30])), tensors()
    layers = np.zeros(RUNS, dtype=int)
    for site in SITES:
        before = clean[site.key].flatten(1).numpy().view(np.uint32)
        words = before ^ found[site.key].view(np.uint32)
        hit = (words != 0).sum(1)
        assert set(hit) <= {0, 3}
        assert set(words[words != 0]) <= {1 << 3, 1 << 30}
        layers += hit > 0
    assert (layers == 2).all()


@pytest.mark.parametrize("at_once", [1, 2])
def test_layers_and_elements_are_hit_evenly(at_once: int) -> None:
    model = FlippedElements(name="f", number=2, at_once=at_once)
    hits = model.hits(SITES, model.plan(SITES, 9, 3, "cell", 0, 3000), 3, "cell")
    layers = np.bincount(hits.site, minlength=3) // 2
    assert layers.sum() == 3000 * at_once
    assert chisquare(layers).pvalue > 1e-4
    for number, site in enumerate(SITES):
        counts = np.bincount(hits.neuron[hits.site == number], minlength=site.neurons)
        assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (ZeroedElements, {"share": 1.5}, "share=1.5: give 0 to 1"),
        (RandomElements, {"number": 0}, "number=0: give at least 1 element"),
        (FlippedElements, {"at_once": 0}, "at_once=0: give 1 layer or more"),
    ],
)
def test_wrong_options(model: type[Elements], options: dict, message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        model(name="m", **options)


def test_more_than_there_is() -> None:
    with pytest.raises(ProgipError, match="number=11 elements of layer 'fc', which has 10"):
        RandomElements(name="r", number=11).select(SITES)
    with pytest.raises(ProgipError, match="at_once=4 of 3 layers; give fewer"):
        RandomElements(name="r", at_once=4).select(SITES)


def test_a_campaign_is_reported_and_its_rows_replayed(tmp_path: Path) -> None:
    chosen = ["fault_model=zeroed_elements", "runs=60", "population=id", "protection=progip"]
    cfg = composed([f"outputs={tmp_path}", *chosen], ROOT / "conf")
    settings = cell_settings(cfg)
    run_cell(settings, resolved(cfg))
    assert not replay(settings, 7).differences
    text = write_report(tmp_path / "campaign")
    assert "zeroed_elements" in text
    assert "vulnerability" not in text.split("figures (svg")[1]  # no single layer to show


def test_the_null_campaign_is_reported(tmp_path: Path) -> None:
    chosen = ["fault_model=none", "runs=60", "population=id", "protection=progip"]
    cfg = composed([f"outputs={tmp_path}", *chosen], ROOT / "conf")
    run_cell(cell_settings(cfg), resolved(cfg))
    assert "faults none" in write_report(tmp_path / "campaign")


def test_the_largest_random_number_stays_below_one() -> None:
    words, _ = RandomElements(name="r")._words(np.array([1 - 2.0**-53, 0.0]), FP32)
    assert words.view(np.float32).tolist() == [1 - 2.0**-24, 0.0]

"""What a detector's perturbation brings: its figures without it, stored with the golden work."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from progip.campaign import subject
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.storage.manifests import read_manifest
from progip.storage.store import CLEAN, UNPERTURBED, execution_folder

CONF = Path(__file__).parents[2] / "conf"
SMALL = [
    "runs=4",
    "batch_size=16",
    "dataset.limit=330",
    "dataset.calibration=60",
    "protection=none",
]
WITH_HEAD = ["model.head=decomposed_confidence", "model.weights=random"]


def cell(outputs: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    """Manifest of a small cell, and where its runs are executed."""
    cfg = composed([f"outputs={outputs}", *SMALL, *overrides], CONF)
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    return read_manifest(folder), execution_folder(folder)


@pytest.mark.parametrize(
    "method",
    [
        ["ood_method=odin", "ood_method.epsilon=0.02"],
        ["ood_method=mahalanobis", "ood_method.epsilon=0.02"],
        ["ood_method=i_odin", "ood_method.epsilon=0.5"],
        ["ood_method=adascale", "ood_method.samples=100"],
        ["ood_method=pro", "ood_method.steps=2", "ood_method.epsilon=0.02"],
        ["ood_method=generalised_odin", *WITH_HEAD],
    ],
    ids=lambda method: method[0].partition("=")[2],
)
def test_figures_at_epsilon_0_are_those_of_a_campaign_at_epsilon_0(
    tmp_path: Path, method: list[str]
) -> None:
    moved, folder = cell(tmp_path / "moved", *method)
    still, other = cell(tmp_path / "still", *method, "ood_method.epsilon=0")
    found = moved["base_metrics_unperturbed"]
    assert found.pop("threshold") == still["thresholds"]["ood"]
    assert found == {k: v for k, v in still["base_metrics"].items() if k != "id_accuracy"}
    scores = pq.read_table(folder / UNPERTURBED).to_pandas()
    columns = ["population", "split", "sample_index", "score"]
    clean = pq.read_table(other / CLEAN, columns=columns).to_pandas()
    assert scores.equals(clean)
    own = pq.read_table(folder / CLEAN, columns=["score"])["score"].to_numpy()
    assert not np.array_equal(own, scores["score"])
    assert still["base_metrics_unperturbed"] is None
    assert not (other / UNPERTURBED).exists()


def test_scores_are_kept_with_the_golden_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGIP_CACHE", str(tmp_path / "cache"))
    first, folder = cell(tmp_path / "first", "ood_method=odin")
    subject._ready.clear()
    second, other = cell(tmp_path / "second", "ood_method=odin", "pass=backward")
    assert len(list((tmp_path / "cache").rglob(UNPERTURBED))) == 1
    assert first["base_metrics_unperturbed"] == second["base_metrics_unperturbed"]
    assert pq.read_table(folder / UNPERTURBED).equals(pq.read_table(other / UNPERTURBED))


def test_methods_that_move_nothing_have_none(tmp_path: Path) -> None:
    manifest, folder = cell(tmp_path, "ood_method=max_logit", "pass=first_forward")
    assert manifest["base_metrics_unperturbed"] is None
    assert not (folder / UNPERTURBED).exists()

"""Campaigns on networks with heads: both executors, faults in the head's layers, identities."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from progip.campaign.replay import replay
from progip.campaign.runner import run_cell
from progip.config import build, cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.heads.text_guided import TextGuided
from progip.storage.manifests import read_manifest

CONF = Path(__file__).parents[2] / "conf"
BASE = [
    "ood_method=none", "ood_dataset=none", "protection=none", "outcome=loss", "sampling=per_layer",
    "sampling.runs_per_layer=60", "probes=[confidence,loss]", "batch_size=8", "dataset.limit=60",
    "dataset.calibration=10", "model.weights=random", "self_check=1.0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "layers"),
    [
        ("split", {"linear.project", "linear.classify"}),
        ("merged_normed", {"linear.gram", "linear.merged"}),
        ("merged_argmax", {"linear"}),
    ],
)
def test_every_layer_of_the_head_is_hit_alike_by_both_executors(
    tmp_path: Path, mode: str, layers: set[str]
) -> None:
    """Every run is executed again by the reference (self_check); a difference stops the cell."""
    given = ["model.head=text_guided", f"model.head.mode={mode}", "model.head.width=32"]
    cfg = composed([f"outputs={tmp_path}", *BASE, *given], CONF)
    folder = run_cell(cell_settings(cfg), resolved(cfg))
    rows = pq.read_table(next(folder.glob("part-*"))).to_pandas()
    hit = {name for name in rows["layer"].unique() if name.startswith("linear")}
    assert hit == layers
    assert (rows["layer"].value_counts() == 60).all()
    head = read_manifest(folder)["identity"]["model"]["head"]
    assert (head["mode"], head["width"]) == (mode, 32)
    assert not replay(cell_settings(cfg), int(rows["run_id"].iloc[-1])).differences


def test_a_network_without_a_head_is_what_it_was() -> None:
    from progip.campaign.settings_identity import identity

    model = cell_settings(composed([], CONF)).subject.model
    assert model.head is None
    assert "head" not in identity(model)


def test_options_of_a_head_are_checked_by_name() -> None:
    made = build(composed(["model.head=text_guided"], CONF).model, Model, "model").head
    assert made == TextGuided()
    for override, message in (
        ("model.head.mode=both", "one of split"),
        ("+model.head.widht=3", r"model\.head\.widht: no such option\. Did you mean width"),
        ("model.head.width=wide", r"model\.head\.width: .*wide"),
        ("model.head._target_=progip.models.digits.DigitsResNet", "is not a Head"),
    ):
        with pytest.raises(ProgipError, match=message):
            build(composed(["model.head=text_guided", override], CONF).model, Model, "model")

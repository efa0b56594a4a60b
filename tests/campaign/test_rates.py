"""Campaigns of faults at a rate, and of the class alone, on whole cells of the embedded demo."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import schemas
from pandas.testing import assert_frame_equal

from progip import records
from progip.campaign.replay import replay
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.storage import store

ROOT = Path(__file__).resolve().parents[2]
RATE = ("fault_model=six_bits", "fault_model.rate=1e-4")
CLASS = ("ood_method=none",)
EVALUATION = 393  # images of the demo


def manifest_of(tmp_path: Path, protection: str) -> dict:
    (found,) = tmp_path.glob(f"*/*/*/*/{protection}/{store.MANIFEST}")
    return json.loads(found.read_text())


def test_rows_of_faults_at_a_rate(run, tmp_path: Path) -> None:
    rows = run(*RATE, *CLASS, "protection=none", "runs=500")
    assert list(rows) == schemas.result_schema(schemas.MANY).names
    assert set(rows["fault_model"]) == {"six_bits_0.0001"}
    assert rows["sample_index"].tolist() == [i % EVALUATION for i in range(500)]
    assert set(rows["layer"]) == {""}
    clean = rows["hits"] == 0
    assert clean.any()
    assert (rows["fault_digest"] == 0).equals(clean)
    assert not rows["class_changed"][clean].any()
    assert rows["class_changed"][~clean].any()
    neurons = sum(layer["neurons"] for layer in manifest_of(tmp_path, "none")["layers"])
    expected = 500 * neurons * 1e-4
    assert abs(rows["hits"].sum() - expected) < 4 * expected**0.5


def test_rates_of_one_sweep_are_cells_of_their_own(run, tmp_path: Path) -> None:
    for rate in ("0", "1e-6", "1e-3"):
        run("fault_model=word", f"fault_model.rate={rate}", *CLASS, "protection=none", "runs=20")
    folders = {p.parents[2].name for p in tmp_path.rglob("none/manifest.json")}
    assert folders == {"none-word_0", "none-word_1e-06", "none-word_0.001"}


@pytest.mark.parametrize("method", ["none", "odin"])
def test_hits_depend_on_nothing_but_seed_cell_and_run(run, method: str) -> None:
    cell = (*RATE, f"ood_method={method}", "protection=none")
    once = run(*cell, "runs=150", "name=once")
    run(*cell, "runs=40", "shard_size=25", "name=parts")
    assert_frame_equal(run(*cell, "runs=150", "shard_size=25", "name=parts"), once)
    columns = [*records.PLAN.names, *schemas.MANY.names]
    assert_frame_equal(run(*cell, "runs=150", "name=b", "batch_size=7")[columns], once[columns])
    other = run(*cell, "runs=150", "seed=1", "name=seed")
    assert not other["fault_digest"].equals(once["fault_digest"])


@pytest.mark.parametrize(
    ("method", "fault_pass"),
    [("none", "first_forward"), *[(m, p) for m in ("odin", "mahalanobis") for p in records.PASSES]],
)
def test_a_row_of_many_hits_replays(run, tmp_path: Path, method: str, fault_pass: str) -> None:
    overrides = [
        f"outputs={tmp_path}", "batch_size=16", *RATE, f"ood_method={method}",
        f"pass={fault_pass}", "protection=none", "runs=40",
    ]  # fmt: skip
    rows = run(*overrides[2:])
    settings = cell_settings(composed(overrides, ROOT / "conf"))
    hit = int(rows["hits"].idxmax())
    for run_id in (0, hit):
        found = replay(settings, run_id)
        assert found.differences == []
    spread = {layer.fault_pass for layer in found.layers if layer.differing}
    assert fault_pass in spread
    first = next(layer.fault_pass for layer in found.layers if layer.differing)
    assert first == fault_pass


def test_replay_notices_other_hits(run, tmp_path: Path) -> None:
    cell = (*RATE, *CLASS, "protection=none", "runs=20")
    run(*cell)
    (path,) = tmp_path.glob("*/*/*/*/none/part-*")
    table = pq.read_table(path)
    position = table.schema.get_field_index("fault_digest")
    pq.write_table(table.set_column(position, "fault_digest", [np.arange(20)]), path)
    settings = cell_settings(
        composed([f"outputs={tmp_path}", "batch_size=16", *cell], ROOT / "conf")
    )
    assert replay(settings, 3).differences == ["fault_digest"]


def test_detectors_watch_faults_at_a_rate(run) -> None:
    cell = (*RATE, "ood_method=odin", "runs=200")
    alarms = {p: run(*cell, f"protection={p}")["alarm"] for p in ("none", "progip", "ranger")}
    assert not alarms["none"].any()
    assert alarms["progip"].any()
    assert alarms["ranger"].any()


def test_the_class_alone(run, tmp_path: Path) -> None:
    """Single flips without a detector: the classes, and failures, of the ODIN campaign."""
    rows = run(*CLASS, "protection=ranger", "runs=300", "fault_model.bits=[29,30]")
    reference = run(
        *CLASS, "protection=ranger", "runs=300", "fault_model.bits=[29,30]",
        "executor=reference", "name=reference",
    )  # fmt: skip
    assert_frame_equal(rows, reference)
    assert rows["originally_correct"].equals(rows["golden_class"] == rows["label"])
    assert rows["classification_failure"].equals(rows["originally_correct"] & rows["class_changed"])
    assert rows["classification_failure"].any()
    assert not rows["verdict_changed"].any()
    assert not rows["nonfinite_score"].any()
    assert rows["alarm"].any()
    (path,) = (tmp_path / "campaign").glob("*/*/*/ranger/manifest.json")
    manifest = json.loads(path.read_text())
    assert set(manifest["base_metrics"]) == {"id_accuracy"}
    assert set(manifest["data"]) == {"train", "id_calibration", "id_evaluation"}


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("pass=backward",), "pass=backward: ood_method 'none' has only first_forward"),
        (("population=ood",), "population=ood: ood_method 'none' judges no OOD input"),
        (("ood_dataset=digits_unseen",), "ood_dataset=digits_unseen: ood_method 'none' looks at"),
        (("protection=progip",), "'progip' looks at grad_max, score, which ood_method 'none'"),
        ((*RATE, "sampling=stratified", "protection=none"), "use sampling=uniform"),
        (
            (*RATE, "protection=none", "sizing.finite=true", "sizing.margin=0.1"),
            "sizing.finite: faults at a rate are not counted",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(run, overrides: tuple[str, ...], named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        run(*CLASS, *overrides)


def test_no_images_serve_as_no_other_set(run) -> None:
    with pytest.raises(ProgipError, match="dataset 'none' has no images"):
        run("ood_dataset=none")

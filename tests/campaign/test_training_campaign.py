"""The training campaign of a supervised protection: nothing evaluated leaks; kept, resumed."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from progip.campaign import subject, training
from progip.campaign.held_out import HeldOut
from progip.campaign.runner import run_cell
from progip.campaign.subject import prepare
from progip.campaign.training import TrainingCampaign
from progip.config import cell_settings, composed, resolved
from progip.datasets.base import Images
from progip.datasets.digits import Digits
from progip.datasets.pairing import population_split
from progip.errors import ProgipError
from progip.protections.supervised import FAULT

CONF = Path(__file__).resolve().parents[2] / "conf"
EVALUATED_BITS = [0, 29, 31]
SMALL = [
    "protection=facer_like", "probes=[layer_traces]", "runs=60", "batch_size=16",
    "fault_model.layers='.*conv2|linear'", f"fault_model.bits={EVALUATED_BITS}",
    "protection.bits=[29,30,31]", "protection.runs=120", "protection.images=10",
    "protection.epochs=2", "protection.hidden=8", "protection.label_by=any",
    "dataset.calibration=40", "dataset.limit=80",
    "ood_dataset.calibration=40", "ood_dataset.limit=80",
]  # fmt: skip
WITH_OOD = [
    "dataset@protection.ood=digits", "protection.ood.digits=[9]", "protection.ood.classes=1",
    "protection.ood.train_size=0", "protection.ood.name=nines", "ood_dataset.digits=[8]",
    "ood_dataset.classes=1", "protection.classes=3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is learnt is learnt anew in each test; all else is kept."""

    def folder(name: str) -> Path:
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        return path

    monkeypatch.setattr(training, "cache_folder", folder)
    yield
    subject._ready.clear()  # some tests change its images


@dataclass
class Seen:
    """What the training campaign executed."""

    plans: list[pa.Table] = field(default_factory=list)
    images: set[bytes] = field(default_factory=set)

    def column(self, name: str) -> set[Any]:
        return set(pa.concat_tables(self.plans)[name].to_pylist())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Spies on the executors and on the clean runs of the training campaign."""
    found = Seen()
    golden, executor = training.golden_table, TrainingCampaign._executor

    def spied_golden(pipeline: Any, images: Any, *rest: Any) -> pa.Table:
        found.images |= {_digest(image.numpy()) for image in images}
        return golden(pipeline, images, *rest)

    def spied_executor(self: TrainingCampaign, images: Any, labels: Any) -> Any:
        found.images |= {_digest(image.numpy()) for image in images}
        right = executor(self, images, labels)
        run = right.run
        right.run = lambda plan: (found.plans.append(plan), run(plan))[1]  # type: ignore
        return right

    monkeypatch.setattr(training, "golden_table", spied_golden)
    monkeypatch.setattr(TrainingCampaign, "_executor", spied_executor)
    return found


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image)).digest()


def run(tmp_path: Path, *more: str) -> Path:
    cfg = composed([f"outputs={tmp_path}", *SMALL, *more], CONF)
    return run_cell(cell_settings(cfg), resolved(cfg))


def rows(folder: Path) -> pa.Table:
    parts = [pq.read_table(path) for path in folder.glob("part-*")]
    return pa.concat_tables(parts).sort_by("run_id")


def check_no_leak(seen: Seen, folder: Path, *more: str) -> None:
    """No image, layer or bit that the evaluation of a cell meets is in what was executed."""
    settings = cell_settings(composed([*SMALL, *more], CONF)).subject
    met: set[bytes] = set()
    for population in ("id", "ood"):
        for split in ("calibration", "evaluation"):
            images = population_split(population, split, settings.dataset, settings.ood_dataset)
            tensor = images.tensor(settings.dataset.mean, settings.dataset.std)
            met |= {_digest(image.numpy()) for image in tensor}
    assert seen.images
    assert seen.plans
    assert not seen.images & met, "an evaluated image"
    evaluated = rows(folder)
    hit = set(evaluated["layer"].to_pylist())
    assert "linear" in hit  # the evaluation hits what it is told to hit
    assert not seen.column("layer") & hit, "an evaluated layer"
    assert set(evaluated["bit"].to_pylist()) == set(EVALUATED_BITS)
    assert not seen.column("bit") & set(EVALUATED_BITS), "an evaluated bit"


def with_evaluated_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training set holds four evaluated images besides its own, and little else."""
    right = Digits.train_images

    def wrong(self: Digits) -> Images:
        mine, test = right(self).take(np.arange(8)), self.split("evaluation").take(np.arange(4))
        both = zip(
            (mine.pixels, mine.labels, mine.index),
            (test.pixels, test.labels, test.index),
            strict=True,
        )
        return Images(*(np.concatenate(pair) for pair in both))

    monkeypatch.setattr(Digits, "train_images", wrong)


def test_nothing_evaluated_reaches_the_training(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_evaluated_images(monkeypatch)
    with caplog.at_level(logging.INFO):
        folder = run(tmp_path, *WITH_OOD)
    check_no_leak(seen, folder, *WITH_OOD)
    assert "4 of 12 id images to learn from are evaluated, too, and left out" in caplog.text
    assert "60 of 60 runs" in caplog.text  # progress
    assert seen.column("bit") == {30}
    learnt = json.loads((folder / "manifest.json").read_text())["learnt"]
    assert learnt["images"] == {"id": 8, "ood": 10}
    assert (learnt["ood_dataset"], learnt["runs"], learnt["bits"]) == ("nines", 120, [30])
    assert seen.column("layer") <= set(learnt["layers"])
    assert len(learnt["state_sha256"]) == 64


@pytest.mark.parametrize(
    ("guard", "nothing", "leak"),
    [
        ("evaluated_images", frozenset(), "an evaluated image"),
        ("evaluated_layers", frozenset(), "an evaluated layer"),
        ("bits", [29, 30, 31], "an evaluated bit"),
    ],
)
def test_a_leak_would_be_found(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch, guard: str, nothing: Any, leak: str
) -> None:
    with_evaluated_images(monkeypatch)
    monkeypatch.setattr(HeldOut, guard, property(lambda _: nothing))
    folder = run(tmp_path, "protection.images=12")
    with pytest.raises(AssertionError, match=leak):
        check_no_leak(seen, folder)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["fault_model.layers=null"], "leaves no layer .*restrict fault_model.layers"),
        (["fault_model.bits=null"], "leaves no bit .*restrict fault_model.bits"),
        (["protection.bits=[29]"], "leaves no bit .*or widen protection.bits"),
        (["fault_model=six_bits", "fault_model.rate=1e-5"], "fault_model 'six_bits_1e-05' cannot"),
        (["dataset@protection.ood=digits_unseen"], "another OOD set than the evaluated"),
    ],
)  # fmt: skip
def test_leakage_is_refused(tmp_path: Path, more: list[str], message: str) -> None:
    kept = SMALL
    if more[0].startswith("fault_model="):
        kept = [one for one in SMALL if not one.startswith("fault_model.bits")]
    cfg = composed([f"outputs={tmp_path}", *kept, *more], CONF)
    with pytest.raises(ProgipError, match=message):
        run_cell(cell_settings(cfg), resolved(cfg))


def test_both_executors_learn_and_judge_the_same(tmp_path: Path, seen: Seen) -> None:
    found = []
    for executor in ("incremental", "reference"):
        for kept in [*tmp_path.glob("learnt/*/state.*"), *tmp_path.glob("training_runs/*/part-*")]:
            kept.unlink()  # learn anew
        found.append(run(tmp_path / executor, f"executor={executor}", *WITH_OOD))
    assert len(seen.plans) == 4  # two populations each
    one, other = (rows(folder) for folder in found)
    assert len(one) == 60
    assert one.equals(other)
    told = [json.loads((folder / "manifest.json").read_text()) for folder in found]
    assert told[0]["learnt"] == told[1]["learnt"]
    assert told[0]["thresholds"] == told[1]["thresholds"]


def test_what_is_learnt_is_kept_and_shared_by_passes(tmp_path: Path, seen: Seen) -> None:
    first = run(tmp_path)
    executed = len(seen.plans)
    second = run(tmp_path, "pass=second_forward")
    assert len(seen.plans) == executed == 1
    hashes = {json.loads((f / "manifest.json").read_text())["learnt"]["state_sha256"]
              for f in (first, second)}  # fmt: skip
    assert len(hashes) == 1
    run(tmp_path / "other", "protection.seed=1")
    assert len(seen.plans) == 2
    run(tmp_path / "third", "protection.hidden=3")  # other learning, of the same runs
    assert len(seen.plans) == 2
    assert len(list((tmp_path / "learnt").iterdir())) == 3


def test_an_interrupted_training_campaign_goes_on(
    tmp_path: Path, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "BLOCK", 50)
    cell = cell_settings(composed([*SMALL, *WITH_OOD], CONF))
    campaign = TrainingCampaign(cell, prepare(cell.subject), cell.protection)  # type: ignore[arg-type]
    whole, labels, hit = campaign.rows()
    assert [len(plan) for plan in seen.plans] == [50, 10, 50, 10]
    assert not (labels[~hit] == FAULT).any()
    assert hit.sum() == 120  # the other rows are the clean images
    known, unknown = (sorted(campaign.folder(p, 60).glob("part-*")) for p in ("id", "ood"))
    known[1].unlink()  # as if stopped before it
    unknown[0].write_bytes(b"torn")
    resumed, again, _ = campaign.rows()
    assert [len(plan) for plan in seen.plans[4:]] == [10, 50]
    assert np.array_equal(labels, again)
    assert all(np.array_equal(whole[name], resumed[name], equal_nan=True) for name in whole)

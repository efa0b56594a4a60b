"""Probes: a column in one file reaches rows, protections and deployed detectors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tiny_networks import tiny_network
from torch import Tensor

from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.campaign.subject import prepare
from progip.config import cell_settings, composed, resolved
from progip.deploy.calibration import guarded_detector, guarded_subject
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.errors import ProgipError
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.base import Detection
from progip.ood_methods.odin import ODIN
from progip.probes import Observation, Probe, optional_probes, probes_named
from progip.probes.largest_logit import LargestLogit
from progip.protections.base import Evidence, Judgement, Protection, first_alarm
from progip.records import PASSES, Column

ROOT = Path(__file__).resolve().parents[2]


class GradientNorm(Probe):
    """A probe that measures something inside the detector: the gradient's L1 norm."""

    name: ClassVar[str] = "gradient_norm"
    produces: ClassVar[tuple[Column, ...]] = (Column("gradient_norm", pa.float32(), paired=True),)

    def measure(self, detection: Detection) -> Tensor:
        return detection.gradient.abs().flatten(1).sum(1)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        return {"gradient_norm": seen.measured["gradient_norm"][:count].numpy()}


@dataclass(kw_only=True)
class LogitFloor(Protection):
    """Alarm where the largest logit is below every clean one, the way of open-set recognition."""

    watches: ClassVar[tuple[str, ...]] = ("largest_logit",)

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {"floor": float(clean["largest_logit"].min())}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        return first_alarm([("logit", ~(evidence["largest_logit"] >= thresholds["floor"]))])


@pytest.mark.parametrize("fault_pass", PASSES)
def test_both_executors_and_autograd_agree(fault_pass: str, images: Tensor) -> None:
    network, method = tiny_network(), ODIN(name="odin", std=[0.5])
    with profiling(network, images[:2]) as ranges:
        method.fit(network, [(images, torch.zeros(len(images)))])
    pipeline = Pipeline(network, method, ranges, [GradientNorm(), LargestLogit()])
    sites = find_sites(network, method, images[:2])[fault_pass]
    model = SingleBitFlip(name="flip", layer_types=["Conv2d", "Linear"])
    chosen = model.select(sites)
    plan = model.plan(chosen, len(images), 0, fault_pass, 0, 300)
    reference = ReferenceExecutor(pipeline, chosen, fault_pass, images, 8).run(plan)
    traced = Traced(pipeline, images[:8])
    incremental = IncrementalExecutor(traced, chosen, fault_pass, images).run(plan)
    for name in ("gradient_norm", "largest_logit"):
        np.testing.assert_array_equal(incremental[name], reference[name])
        assert len(np.unique(reference[name])) > 30
    golden = golden_table(pipeline, images, np.zeros(len(images)), 8)
    expected = network(images)
    np.testing.assert_allclose(golden["largest_logit"], expected.detach().amax(1), rtol=1e-5)
    given = images.clone().requires_grad_(True)
    _, loss = method.first_forward(network, given)
    (gradient,) = torch.autograd.grad(loss.sum(), given)
    np.testing.assert_allclose(
        golden["gradient_norm"], gradient.abs().flatten(1).sum(1), rtol=1e-4, atol=1e-9
    )


def settings_of(tmp_path: Path, *overrides: str) -> tuple[CellSettings, dict]:
    cfg = composed([f"outputs={tmp_path}", "runs=300", *overrides], ROOT / "conf")
    return cell_settings(cfg), resolved(cfg)


def test_a_column_of_ones_own_reaches_rows_and_protection(tmp_path: Path) -> None:
    chosen = ["probes=[largest_logit]", "fault_model.bits=[28,30]"]
    settings, config = settings_of(tmp_path, *chosen)
    settings.protection = LogitFloor(name="logit_floor")
    folder = run_cell(settings, config)
    rows = pa.concat_tables(map(pq.read_table, sorted(folder.glob("part-*")))).to_pandas()
    subject = prepare(settings.subject)
    floor = subject.golden.tables["id", "calibration"]["largest_logit"].to_numpy().min()
    other = subject.golden.tables["ood", "calibration"]["largest_logit"].to_numpy().min()
    expected = ~(rows["faulty_largest_logit"] >= min(floor, other))
    assert (rows["alarm"] == expected).all()
    assert 0 < expected.sum() < len(rows)
    golden = subject.golden.evaluation("id")["largest_logit"].to_numpy()
    assert (rows["golden_largest_logit"] == golden[rows["sample_index"]]).all()
    with guarded_subject(subject, settings.protection) as detector:
        images = subject.tested.images["id"][:50]
        assert (detector(images).alarm == ~(golden[:50] >= min(floor, other))).all()


def test_a_deployed_detector_observes_what_its_protection_needs(images: Tensor) -> None:
    network = tiny_network()
    detector = guarded_detector(
        network,
        ODIN(name="odin", std=[0.5]),
        LogitFloor(name="logit_floor"),
        train=[(images, torch.zeros(len(images)))],
        id_images=images[:20],
    )
    with detector:
        alarm = detector(images).alarm
    logits = network(images).amax(1).numpy()
    np.testing.assert_array_equal(alarm, logits < logits[:20].min())


def test_what_nothing_produces_is_refused_by_name(tmp_path: Path) -> None:
    settings, _ = settings_of(tmp_path)
    settings.protection = LogitFloor(name="logit_floor")
    with pytest.raises(ProgipError, match=r"'logit_floor' needs largest_logit, which the probe"):
        settings.__post_init__()


def test_probes_by_name_and_by_class() -> None:
    assert "largest_logit" in optional_probes()
    (probe,) = probes_named(["progip.probes.largest_logit.LargestLogit"])
    assert isinstance(probe, LargestLogit)
    with pytest.raises(ProgipError, match="both produce the column largest_logit"):
        probes_named(["largest_logit", "largest_logit"])
    with pytest.raises(ProgipError, match=r"Path is not a Probe"):
        probes_named(["pathlib.Path"])

"""A detector with its protection, as deployed: images in, classes, verdicts and alarms out."""

from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from progip.deploy.corrections import CorrectionsSeen
from progip.deploy.range_checks import FusedRangeChecks, LayerRangeChecks, RangeChecks
from progip.engine.pipeline import Pipeline, probed
from progip.engine.ranges import RangeTable
from progip.errors import ProgipError
from progip.models.calls import Call
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass
from progip.probes import Observation, Probe
from progip.probes.needs import check_needs, probes_for
from progip.protections.base import Judgement, Limit, Protection
from progip.records import NO_CLASS

RANGE_CHECKS = ("fused", "per_layer")


class Answer(NamedTuple):
    """What a guarded detector says of B images; NumPy arrays (B,), each row of its image alone.

    Attributes:
        label: the class, -1 where the logits hold a NaN.
        score: float64, higher means more in-distribution.
        in_distribution: the verdict, score above the threshold.
        alarm: the protection calls the inference faulty; nothing else of the row can be trusted.
        stage: which check raised the alarm first, "" where there is none.
    """

    label: np.ndarray
    score: np.ndarray
    in_distribution: np.ndarray
    alarm: np.ndarray
    stage: np.ndarray


class GuardedDetector:
    """``detector(images) -> Answer``: network, OOD method and protection in one.

    It gathers only the evidence its protection watches, on the device, and reads it together with
    class and score: a protection costs no synchronisation of its own. Alarms are those that a
    campaign's rows show for the same execution. Made by ``calibration.guarded_detector``; range
    checks stay hooked until ``detach`` (or the end of a ``with`` block).

    Args:
        network: in evaluation mode, parameters frozen; of a correcting protection the one that it
            made (``protecting.protected_network``).
        thresholds: of the protection (``Protection.calibrate``).
        ood_threshold: scores above it are in-distribution.
        ranges: clean value ranges, used where the protection watches them.
        range_checks: ``fused`` (extremes on the device, read once) or ``per_layer`` (each hook
            compares and waits, as in the ProGIP source).
        probes: what observes that which the protection needs beside the evidence of every detector,
            fitted where they learn; None makes those of this package that learn nothing.

    Raises:
        ProgipError: the network is in training mode or has parameters that require gradients, an
            option is unknown, or there is nothing to range-check.
    """

    def __init__(
        self,
        network: nn.Module,
        method: OODMethod,
        protection: Protection,
        *,
        thresholds: dict[str, float],
        ood_threshold: float,
        ranges: RangeTable,
        range_checks: str = "fused",
        probes: Sequence[Probe] | None = None,
    ) -> None:
        if network.training:
            raise ProgipError("guarded detector: call network.eval() first")
        if any(parameter.requires_grad for parameter in network.parameters()):
            raise ProgipError("guarded detector: call network.requires_grad_(False) first")
        if range_checks not in RANGE_CHECKS:
            raise ProgipError(
                f"range_checks={range_checks!r} is not one of {', '.join(RANGE_CHECKS)}"
            )
        self._corrections = CorrectionsSeen(network, protection)
        self.probes = probes_for(protection.watches, method.evidence, probes)
        owner = f"protection '{protection.name}'"
        check_needs(owner, protection.watches, method.name, method.evidence, self.probes)
        self.network, self.method, self.protection = network, method, protection
        self.thresholds, self.ood_threshold = thresholds, ood_threshold
        self.ranges = ranges
        self._limits = protection.limits(thresholds)
        self._watches = frozenset(protection.watches)
        # of the layers that probes look at: the engine's own hooks, without its range checks
        self._looks = Pipeline(network, method, RangeTable(), self.probes)
        self._outputs: dict[str, dict[Call, Tensor]] = {}
        self._checks: RangeChecks | None = None
        if self._watches & {"range_excess_first", "range_excess_second"}:
            if range_checks == "fused":
                self._checks = FusedRangeChecks(network, ranges, method.passes)
            elif "range_excess" in thresholds:
                self._checks = LayerRangeChecks(
                    network, ranges, method.passes, thresholds["range_excess"]
                )
            else:
                raise ProgipError(
                    f"range_checks=per_layer: protection '{protection.name}' has no threshold "
                    "'range_excess' for the hooks to compare with; use range_checks=fused"
                )
        self.attach()

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Answer:
        """Answer for images (B, channels, height, width), normalised, on the network's device."""
        check_images("guarded detector", images)
        try:
            return self.answer(self._detect(images, enter))
        except (RuntimeError, ValueError, AssertionError) as problem:
            raise ProgipError(
                f"guarded detector: images of shape {tuple(images.shape)} on {images.device} do "
                f"not go through: {str(problem).splitlines()[0] if str(problem) else problem!r}"
            ) from problem

    def _detect(self, images: Tensor, enter: EnterPass) -> Detection:
        if not any(probe.layers is not None for probe in self.probes):
            return self._checked(images, enter)
        with self._looks.watching_layers(images, enter) as (self._outputs, enter_pass):
            return self._checked(images, enter_pass)

    def _checked(self, images: Tensor, enter: EnterPass) -> Detection:
        checks, corrections = self._checks, self._corrections
        if checks is None and not corrections.watched:
            return self.method.detect(self.network, images, enter)
        if checks is not None:
            checks.begin(images)
        corrections.begin()

        def enter_pass(name: str) -> None:
            if checks is not None:
                checks.enter(name)
            corrections.enter(name)
            enter(name)

        try:
            detection = self.method.detect(self.network, images, enter_pass)
            corrections.leave()
            return detection
        finally:
            if checks is not None:
                checks.rest()

    def answer(self, detection: Detection) -> Answer:
        """What to say of a detection: all that is done after the OOD method's three passes."""
        found = {"logits": detection.logits, "score": detection.score}
        if "grad_max" in self._watches or "nonfinite_gradient" in self._watches:
            found["grad_max"] = detection.gradient.abs().flatten(1).amax(1)
        if self._checks is not None:
            found |= self._checks.evidence()
        found |= self._corrections.evidence()
        host = _read(found)
        logits, score = host["logits"], host["score"]
        label = logits.argmax(1)
        label[np.isnan(logits).any(1)] = NO_CLASS
        if "nonfinite_logits" in self._watches:
            host["nonfinite_logits"] = ~np.isfinite(logits).all(1)
        for name, value in (("nonfinite_gradient", "grad_max"), ("nonfinite_score", "score")):
            if name in self._watches:
                host[name] = ~np.isfinite(host[value])
        if self.probes:
            host |= self._probed(detection)
        if self._limits is None:
            alarm, stage = self.protection.judge(host, self.thresholds)
        else:
            alarm, stage = _compared(self._limits, host, len(score))
        return Answer(label, score, score > self.ood_threshold, alarm, stage)

    def _probed(self, detection: Detection) -> dict[str, np.ndarray]:
        """What the probes show that the protection needs beside the evidence of every detector."""
        nothing = detection.logits.new_zeros((len(detection.logits), 0))
        seen = Observation(
            detection.logits,
            detection.gradient.abs().flatten(1).amax(1),
            detection.score,
            nothing,
            nothing,
            measured=probed(self.probes, detection, self._outputs),
        )
        columns: dict[str, np.ndarray] = {}
        for probe in self.probes:
            columns |= probe.columns(seen, len(detection.logits))
        return columns

    @property
    def checks_ranges(self) -> bool:
        """Whether the protection watches ranges, so that layers are hooked."""
        return self._checks is not None

    def attach(self) -> None:
        """Hook the range-checked layers, if any; done when the detector is made."""
        if self._checks is not None:
            self._checks.attach()

    def detach(self) -> None:
        """Give the network back without hooks; ``attach`` arms the detector again."""
        if self._checks is not None:
            self._checks.detach()

    def __enter__(self) -> "GuardedDetector":
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.detach()


def check_images(owner: str, images: object) -> None:
    """Refuse what is no batch of normalised images.

    Raises:
        ProgipError: naming the owner, and what to give.
    """
    wanted = "normalised images of shape (B, channels, height, width), B >= 1, a float32 tensor"
    if not isinstance(images, Tensor):
        raise ProgipError(
            f"{owner}: give {wanted}, not {type(images).__name__}"
            + (" (torch.from_numpy makes one)" if isinstance(images, np.ndarray) else "")
        )
    if images.dim() != 4 or not len(images):
        raise ProgipError(f"{owner}: give {wanted}, not {tuple(images.shape)}")
    if images.dtype != torch.float32:
        raise ProgipError(f"{owner}: give {wanted}, not {images.dtype}")


def _compared(limits: tuple[Limit, ...], evidence: dict[str, np.ndarray], count: int) -> Judgement:
    """As ``protections.base.outside``, row by row: for the few rows of a deployed batch."""
    raised: dict[int, str] = {}
    for stage, column, low, high in limits:
        for row, value in enumerate(evidence[column].tolist()):
            if not low <= value <= high:
                raised.setdefault(row, stage)
    alarm = np.zeros(count, dtype=bool)
    stages = np.empty(count, dtype=object)
    stages.fill("")
    for row, stage in raised.items():
        alarm[row], stages[row] = True, stage
    return Judgement(alarm, stages)


def _read(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Bring tensors of one device to the host with one synchronisation, none on a CPU."""
    device = next(iter(tensors.values())).device
    if device.type == "cuda":
        tensors = {name: t.to("cpu", non_blocking=True) for name, t in tensors.items()}
        torch.cuda.current_stream(device).synchronize()
    return {name: tensor.numpy(force=device.type != "cpu") for name, tensor in tensors.items()}

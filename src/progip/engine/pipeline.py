"""The detector with its range checks as one pure function of a batch, for every executor."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from progip.engine.ranges import Bounds, RangeTable, extremes
from progip.models.calls import Call, watch_calls
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass
from progip.probes import DetectionProbe, Observation, Probe, RangeProbe

# Its fused kernel is taken only where no gradient is needed and never under tracing: two passes of
# one detector would use different arithmetic, and hooks inside attention would not fire.
torch.backends.mha.set_fastpath_enabled(False)


class Pipeline:
    """``pipeline(images) -> Observation``: network, OOD method and range observation together.

    Args:
        probes: what is observed beside the outcome of the detector and its ranges.

    Attributes:
        probes: all of them, in the order of their columns.
    """

    def __init__(
        self,
        network: nn.Module,
        method: OODMethod,
        ranges: RangeTable,
        probes: Sequence[Probe] = (),
    ) -> None:
        self.network = network
        self.method = method
        self.ranges = ranges
        self.probes: tuple[Probe, ...] = (DetectionProbe(), RangeProbe(ranges.sites), *probes)
        self._bounds: Bounds | None = None

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        seen: dict[str, dict[Call, Any]] = {"first_forward": {}, "second_forward": {}}
        current: dict[Call, Any] = {}

        def enter_pass(name: str) -> None:
            nonlocal current
            current = seen.get(name, {})
            enter(name)

        def measure(site: Call, _: Any, output: Tensor) -> None:
            if site in self.ranges.source:
                current[site] = self._measured(site, output.detach())

        with watch_calls(self.network, self.ranges.layers, measure):
            detection = self.method.detect(self.network, images, enter_pass)
        return Observation(
            detection.logits,
            detection.gradient.abs().flatten(1).amax(1),
            detection.score,
            self._excess(seen["first_forward"], images),
            self._excess(seen["second_forward"], images),
            measured=self._probed(detection),
        )

    def _probed(self, detection: Detection) -> dict[str, Tensor]:
        found = ((probe.name, probe.measure(detection)) for probe in self.probes)
        return {name: tensor for name, tensor in found if tensor is not None}

    def _measured(self, site: Call, output: Tensor) -> Any:
        """What is kept of the output of a range-checked call until the passes are over."""
        return extremes(self.ranges.axis[site].rows(output))

    def _excess(self, seen: dict[Call, Any], images: Tensor) -> Tensor:
        """``Observation.excess_first`` or ``_second`` from what was measured in that pass."""
        if not seen:
            return images.new_full((len(images), len(self.ranges.sites)), -1.0)
        if self._bounds is None or self._bounds.low.device != images.device:
            self._bounds = self.ranges.bounds(images.device)
        least, most = zip(*(seen[site] for site in self.ranges.sites), strict=True)
        return self._bounds.excess(torch.stack(least, 1), torch.stack(most, 1))

"""The detector with its range checks as one pure function of a batch, for every executor."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from progip.engine.ranges import Bounds, RangeTable, extremes
from progip.models.calls import Call, watch_calls
from progip.ood_methods.base import EnterPass, OODMethod, no_pass

# Its fused kernel is taken only where no gradient is needed and never under tracing: two passes of
# one detector would use different arithmetic, and hooks inside attention would not fire.
torch.backends.mha.set_fastpath_enabled(False)


class Observation(NamedTuple):
    """What one execution of B images shows; every row depends on its own image alone.

    Attributes:
        logits: (B, classes) of the first forward pass.
        grad_max: (B,) largest absolute value of the input gradient; NaN if it holds a NaN.
        score: (B,) float64.
        excess_first, excess_second: (B, range sites) how far the outputs of each range-checked
            layer leave the clean range in each forward pass, in widths of that range; negative
            inside, NaN where an output is NaN, -1 in a pass that the method does not make.
        flagged, corrected: (B,) bool and int64, of a network with a correcting protection: whether
            it found an error, how many values it corrected, in all forward passes together.
    """

    logits: Tensor
    grad_max: Tensor
    score: Tensor
    excess_first: Tensor
    excess_second: Tensor
    flagged: Tensor | None = None
    corrected: Tensor | None = None


class Pipeline:
    """``pipeline(images) -> Observation``: network, OOD method and range observation together."""

    def __init__(self, network: nn.Module, method: OODMethod, ranges: RangeTable) -> None:
        self.network = network
        self.method = method
        self.ranges = ranges
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
        )

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

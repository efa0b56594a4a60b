"""The detector with its range checks as one pure function of a batch, for every executor."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from progip.engine.ranges import RangeTable
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

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        excess: dict[str, dict[Call, Tensor]] = {"first_forward": {}, "second_forward": {}}
        current: dict[Call, Tensor] = {}

        def enter_pass(name: str) -> None:
            nonlocal current
            current = excess.get(name, {})
            enter(name)

        def measure(site: Call, _: Any, output: Tensor) -> None:
            current[site] = self.ranges.excess(site, output, len(images))

        with watch_calls(self.network, self.ranges.layers, measure):
            detection = self.method.detect(self.network, images, enter_pass)
        return Observation(
            detection.logits,
            detection.gradient.abs().flatten(1).amax(1),
            detection.score,
            self._stack(excess["first_forward"], images),
            self._stack(excess["second_forward"], images),
        )

    def _stack(self, columns: dict[Call, Tensor], images: Tensor) -> Tensor:
        if not self.ranges.sites:
            return images.new_full((len(images), 0), 0.0)
        return torch.stack(self._in_order(columns, images), 1)

    def _in_order(self, columns: dict[Call, Tensor], images: Tensor) -> list[Tensor]:
        if not columns:
            return [images.new_full((len(images),), -1.0)] * len(self.ranges.sites)
        return [columns[site].detach() for site in self.ranges.sites]

"""Range checks inside a running detector, in the two forms they are deployed in.

Both hook the layers of a ``RangeTable`` and give the evidence ``range_excess_first`` and
``range_excess_second`` of a batch of B inferences, shape (B,), as a campaign records it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from progip.engine.ranges import RangeTable, extremes
from progip.errors import ProgipError
from progip.passes import is_forward
from progip.protections.placement import nothing_to_check
from progip.records import PASSES

FIRST = "first_forward"


class RangeChecks(ABC):
    """Hooks on the range-checked layers of one network, from ``attach`` to ``detach``.

    Args:
        passes: those that the OOD method makes; where it makes no forward pass after the first the
            excess of these is -1.

    Between ``rest`` and the next ``enter``, and in the backward pass, the hooks do nothing.

    Raises:
        ProgipError: there is no layer to check, or the network lacks one of them.
    """

    def __init__(
        self,
        network: nn.Module,
        ranges: RangeTable,
        passes: Sequence[str] = PASSES,
    ) -> None:
        modules = dict(network.named_modules())
        if not ranges.sites:
            raise nothing_to_check("range checks", network)
        self.passes = [name for name in passes if is_forward(name)]
        for layer in ranges.layers:
            if layer not in modules:
                raise ProgipError(f"range checks: the network has no module '{layer}'")
        self.ranges = ranges
        self._sites: dict[str, dict[int, int]] = {layer: {} for layer in ranges.layers}
        for position, (layer, call) in enumerate(ranges.sites):
            self._sites[layer][call] = position
        self._axes = [ranges.axis[site] for site in ranges.sites]
        self._modules = [(layer, modules[layer]) for layer in sorted(ranges.layers)]
        self._handles: list[RemovableHandle] = []
        self._calls: dict[str, int] = {}
        self._pass: int | None = None
        self._batch = 0

    def attach(self) -> None:
        """Hook the layers; nothing happens where they are hooked already."""
        if not self._handles:
            for layer, module in self._modules:
                self._handles.append(module.register_forward_hook(self._hook(layer)))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enter(self, name: str) -> None:
        """Told by the detector, just before it begins a pass."""
        self._pass = self.passes.index(name) if name in self.passes else None
        self._calls.clear()

    def begin(self, images: Tensor) -> None:
        """A batch of images begins."""
        self._batch = len(images)

    def rest(self) -> None:
        """The batch is over: whoever else uses the network now is not watched."""
        self._pass = None

    @abstractmethod
    def evidence(self) -> dict[str, Tensor]:
        """Of the batch since ``begin``."""

    @abstractmethod
    def _check(self, fault_pass: int, position: int, output: Tensor) -> None:
        """Look at the output, without gradient, of the site at this position in one pass."""

    def _named(self, excess: Sequence[Tensor] | Tensor) -> dict[str, Tensor]:
        """The evidence from the excess (B,) of each pass that is made."""
        unmade = torch.full_like(excess[0], -1.0)
        first, later = unmade, []
        for name, found in zip(self.passes, excess, strict=True):
            if name == FIRST:
                first = found
            else:
                later.append(found)
        second = torch.stack(later).amax(0) if later else unmade  # NaN is the largest
        return {"range_excess_first": first, "range_excess_second": second}

    def _hook(self, layer: str) -> Any:
        sites = self._sites[layer]

        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if self._pass is not None:
                call = self._calls.get(layer, 0)
                self._calls[layer] = call + 1
                if call in sites:
                    self._check(self._pass, sites[call], output.detach())

        return hook


class FusedRangeChecks(RangeChecks):
    """Extremes per site stay on the device; all are compared at once when the batch is over.

    The arithmetic is that of ``Bounds.excess``, so the evidence is the campaign's, to the bit.
    """

    def __init__(
        self,
        network: nn.Module,
        ranges: RangeTable,
        passes: Sequence[str] = PASSES,
    ) -> None:
        super().__init__(network, ranges, passes)
        self._values: list[Tensor | None] = []
        low, high, width = ranges.bounds(torch.device("cpu"))
        # value - high <= 0 and (-value) - (-low) <= 0; (kinds, sites, 1)
        self._bounds = torch.stack([high, -low]).unsqueeze(2)
        self._widths = width.view(1, -1, 1)

    def begin(self, images: Tensor) -> None:
        super().begin(images)
        self._values = [None] * (2 * len(self.passes) * len(self.ranges.sites))
        self._bounds = self._bounds.to(images.device)
        self._widths = self._widths.to(images.device)

    def evidence(self) -> dict[str, Tensor]:
        values, self._values = self._values, []
        if any(value is None for value in values):
            raise RuntimeError("a range-checked layer did not run in one of the forward passes")
        stacked = torch.stack(values)  # type: ignore[arg-type]
        seen = stacked.view(len(self.passes), 2, -1, self._batch)
        seen[:, 1].neg_()  # passes, kinds (most, least), sites, rows
        worst = seen.sub_(self._bounds).div_(self._widths).amax((1, 2))  # NaN is the largest
        return self._named(worst)

    def _check(self, fault_pass: int, position: int, output: Tensor) -> None:
        sites = len(self.ranges.sites)
        slot = 2 * fault_pass * sites + position
        self._values[slot + sites], self._values[slot] = extremes(self._axes[position].rows(output))


class LayerRangeChecks(RangeChecks):
    """Every hook compares all values with the limits and waits for the answer.

    The form of the ProGIP source ("hooks on all activation layers ..."), which it reports at 234 to
    265 % of the unprotected runtime. An excess is not measured: it is 0 inside, infinite outside.

    Args:
        margin: how far a value may leave its range, in widths of the range.
    """

    def __init__(
        self,
        network: nn.Module,
        ranges: RangeTable,
        passes: Sequence[str] = PASSES,
        margin: float = 0.0,
    ) -> None:
        super().__init__(network, ranges, passes)
        self._limits: list[tuple[float, float]] = []
        for low, high in map(ranges.limits, ranges.sites):
            slack = margin * (high - low)
            self._limits.append((low - slack, high + slack))
        self._outside: list[Tensor] = []

    def begin(self, images: Tensor) -> None:
        super().begin(images)
        self._outside = [images.new_zeros(len(images)) for _ in self.passes]

    def evidence(self) -> dict[str, Tensor]:
        return self._named(self._outside)

    def _check(self, fault_pass: int, position: int, output: Tensor) -> None:
        low, high = self._limits[position]
        inside = (output >= low) & (output <= high)  # NaN is not
        if not inside.all():
            outside = ~self._axes[position].rows(inside).flatten(1).all(1)
            self._outside[fault_pass].masked_fill_(outside, torch.inf)

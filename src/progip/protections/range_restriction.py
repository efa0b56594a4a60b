"""Ranger in its correcting form: values outside their clean range are put back or zeroed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from progip.described import WORKS
from progip.errors import ProgipError
from progip.models.calls import Call, hook_calls, watch_calls
from progip.protections.correcting import (
    Correcting,
    State,
    by_call,
    check_choices,
    check_fitted,
    key_of,
    shared_copy,
)
from progip.protections.float_histogram import FloatHistogram
from progip.protections.placement import (
    extremes,
    find_range_sites,
    nothing_to_check,
    require_images_first,
)

CHOICES = {"action": ("clip", "zero"), "nan_policy": ("propagate", "upper", "zero")}


@dataclass(kw_only=True)
class RangeRestriction(Correcting):
    """Range restriction, Ranger in its correcting form.

    Source: Chen, Li, Pattabiraman: A low-cost fault corrector for deep neural networks through
    range restriction, DSN 2021; github.com/DependableSystemsLab/Ranger.

    Every activation, and every pool or reshape that directly follows one, is bounded by what the
    activation gave on clean training images: one pair of bounds a call (``find_range_sites``). The
    lower bound of a ReLU is 0. The last layer has no activation and is not covered.

    A comparison with NaN is false and clipping returns NaN, so the published operator hands NaN
    on; here NaN is out of range, and ``nan_policy`` says what becomes of it.

    Attributes:
        action: ``clip`` to the nearest bound (the source), or ``zero`` (FT-ClipAct).
        nan_policy: a NaN becomes 0 (``zero``), the upper bound (``upper``), or stays
            (``propagate``, the published code).
        share: of the training images that are profiled, chosen at random with a fixed seed; the
            published demo takes 0.2.
        coverage: share of the profiled values that the bounds hold; below 1 it is the
            ``restriction_val`` of the published code, on both sides of an activation other than
            ReLU, to 0.2 % of the bound.

    Raises:
        ProgipError: an option has a wrong value.
    """

    sentence: ClassVar[str] = (
        "Range restriction puts activations outside their range on clean training images back "
        "or to zero, and raises an alarm where it did [Ranger]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Ranger": WORKS["Ranger"],
    }

    action: str = "clip"
    nan_policy: str = "zero"
    share: float = 1.0
    coverage: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self, CHOICES)
        if not 0 < self.share <= 1:
            raise ProgipError(f"protection '{self.name}': share must be in (0, 1]")
        if not 0.5 < self.coverage <= 1:
            raise ProgipError(f"protection '{self.name}': coverage must be in (0.5, 1]")

    @torch.no_grad()
    def fit(
        self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """The bounds (low, high) of every checked call, float32."""
        chooser = torch.Generator().manual_seed(0)
        sites: dict[Call, tuple[Call, ...]] = {}
        extremes: dict[Call, tuple[Tensor, Tensor]] = {}
        histograms: dict[Call, FloatHistogram] = {}
        images = 0

        def seen(call: Call, _: Any, output: Tensor) -> None:
            if sites.get(call) != (call,):  # a follower, profiled through its activations
                return
            least, most = output.aminmax()
            if call in extremes:
                before = extremes[call]
                least, most = torch.minimum(before[0], least), torch.maximum(before[1], most)
            extremes[call] = least, most
            if self.coverage < 1:
                histograms.setdefault(call, FloatHistogram(output.device)).add(output)

        for batch, _ in batches:
            if self.share < 1:
                chosen = torch.rand(len(batch), generator=chooser) < self.share
                batch = batch[chosen.to(batch.device)]
            if not len(batch):
                continue
            if not sites:
                sites = find_range_sites(network, batch[:2])
                if not sites:
                    raise nothing_to_check(f"protection '{self.name}'", network)
                require_images_first(self.name, network, sites, batch)
            with watch_calls(network, {layer for layer, _ in sites}, seen):
                network(batch)
            images += len(batch)
        check_fitted(images, self.name)
        modules = dict(network.named_modules())
        own = {
            call: self._bounds(modules[call[0]], call, limits, histograms.get(call))
            for call, limits in extremes.items()
        }
        return {
            key_of(call, "range"): torch.tensor(
                [min(own[s][0] for s in sources), max(own[s][1] for s in sources)]
            )
            for call, sources in sites.items()
        }

    def _bounds(
        self,
        module: nn.Module,
        call: Call,
        extremes: tuple[Tensor, Tensor],
        histogram: FloatHistogram | None,
    ) -> tuple[float, float]:
        low, high = (limit.item() for limit in extremes)
        if not (-float("inf") < low and high < float("inf")):
            raise ProgipError(
                f"layer '{call[0]}': its clean outputs are not finite on the training images; "
                "the weights or the normalisation are wrong"
            )
        relu = isinstance(module, nn.ReLU | nn.ReLU6)
        if histogram is not None:
            high = min(high, histogram.quantile(self.coverage))
            low = low if relu else max(low, histogram.quantile(1 - self.coverage, upper=False))
        return (0.0 if relu else low), high

    def protect(self, network: nn.Module, state: State) -> nn.Module:
        result, record = shared_copy(network)
        bounds = by_call(state, "range", network, self.name)
        limits = {call: (pair[0].item(), pair[1].item()) for call, pair in bounds.items()}

        def restrict(call: Call, _: Any, output: Tensor) -> Tensor | None:
            if call not in limits:
                return None
            low, high = limits[call]
            least, most = extremes(record.by_row(output.detach()))
            if self.nan_policy == "propagate":
                record.flag(torch.isnan(most))
            outside = ~((least >= low) & (most <= high))  # NaN is
            found: Tensor | None = record.mend(
                call, output, outside, lambda values, _: self._restricted(values, low, high)
            )
            return found

        record.calls = len(limits)
        hook_calls(result, {layer for layer, _ in limits}, restrict, record.start)
        return result

    def _restricted(self, values: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
        if self.action == "clip":
            result = values.clamp(low, high)
        else:
            inside = (values >= low) & (values <= high) | torch.isnan(values)
            result = torch.where(inside, values, 0.0)
        if self.nan_policy == "propagate":
            return result, (result != values) & ~torch.isnan(values)
        result = torch.nan_to_num(result, nan=high if self.nan_policy == "upper" else 0.0)
        return result, result != values

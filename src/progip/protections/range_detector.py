"""GoldenEye's range detector: outputs of layers that leave their clean magnitude are put back."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    check_fitted,
    key_of,
    shared_copy,
)
from progip.protections.placement import extremes, require_images_first


@dataclass(kw_only=True)
class RangeDetector(Correcting):
    """Outputs of layers that are NaN, infinite or larger than any clean one become that largest.

    M is the largest magnitude that a call of a layer gives on clean training images; a value beyond
    it becomes M with its sign, a NaN becomes M. GoldenEye always has it on where it flips bits of
    values, so its published rates are those of a network protected like this.

    Attributes:
        layer_types: classes of the modules that are watched, by name; a class derived from one of
            them counts, too.
    """

    sentence: ClassVar[str] = (
        "The range detector puts outputs of layers beyond their largest magnitude on clean "
        "training images back to it, NaN too, and raises an alarm where it did [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {"GoldenEye": WORKS["GoldenEye"]}

    layer_types: list[str] = field(default_factory=lambda: ["Conv2d", "Linear"])

    def _layers(self, network: nn.Module) -> set[str]:
        found = {
            name
            for name, module in network.named_modules()
            if any(kind.__name__ in self.layer_types for kind in type(module).__mro__)
        }
        if not found:
            raise ProgipError(
                f"protection '{self.name}': the network has no layer of type "
                + ", ".join(self.layer_types)
            )
        return found

    @torch.no_grad()
    def fit(
        self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """M of every call of a watched layer. Raises ProgipError where it is not finite."""
        largest: dict[Call, Tensor] = {}
        layers, images = self._layers(network), 0

        def seen(call: Call, _: Any, output: Tensor) -> None:
            most = output.abs().amax()
            largest[call] = torch.maximum(largest[call], most) if call in largest else most

        for batch, _ in batches:
            with watch_calls(network, layers, seen):
                network(batch)
            if not images:
                require_images_first(self.name, network, largest, batch)
            images += len(batch)
        check_fitted(images, self.name)
        wrong = next((call for call, most in largest.items() if not torch.isfinite(most)), None)
        if wrong is not None:
            raise ProgipError(
                f"layer '{wrong[0]}': its clean outputs are not finite on the training images; the "
                "weights or the normalisation are wrong"
            )
        return {key_of(call, "largest"): most.cpu() for call, most in largest.items()}

    def protect(self, network: nn.Module, state: State) -> nn.Module:
        result, record = shared_copy(network)
        found = by_call(state, "largest", network, self.name)
        limits = {call: most.item() for call, most in found.items()}

        def detect(call: Call, _: Any, output: Tensor) -> Tensor | None:
            limit = limits.get(call)
            if limit is None:
                return None
            least, most = extremes(record.by_row(output.detach()))
            outside = ~((least >= -limit) & (most <= limit))  # NaN is
            mended: Tensor | None = record.mend(
                call, output, outside, lambda values, _: restricted(values, limit)
            )
            return mended

        record.calls = len(limits)
        hook_calls(result, {layer for layer, _ in limits}, detect, record.start)
        return result


def restricted(values: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Values within +-limit, NaN at +limit, and which of them changed."""
    result = torch.nan_to_num(values, nan=limit).clamp(-limit, limit)
    return result, result != values

"""A ReLU with an upper bound as a correcting protection: options, bounds, and the network."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from progip.described import WORKS
from progip.errors import ProgipError
from progip.models.calls import Call, hook_calls
from progip.options import check_read
from progip.protections.bounded.data import SearchData, collected
from progip.protections.bounded.replacement import NAN_POLICIES, REPLACEMENTS, bounded
from progip.protections.correcting import (
    Correcting,
    State,
    by_call,
    check_choices,
    key_of,
    shared_copy,
)
from progip.storage.whole_files import Checkpoint

GRANULARITIES = ("layer", "channel", "neuron", "hybrid")
Bounds = dict[Call, Tensor]


@dataclass(kw_only=True)
class BoundedActivation(Correcting):
    """Every ReLU and ReLU6 gets an upper bound; what is beyond it is replaced.

    Bounds are parameters of the protected network (``bound_0`` of each ReLU, ``bound_1`` of its
    second call, ...), so faults in memory can hit them. They are learnt from training images alone:
    ``images`` of them to search with, ``validation`` others to choose by.

    Attributes:
        replacement: ``zero``, ``clamp`` or ``soft_zero``; see ``replacement.bounded``.
        slope: of ``soft_zero``; read with it alone.
        granularity: what has a bound of its own: the ``layer``, a ``channel``, a ``neuron``; or
            ``hybrid``: every neuron of the last ReLU, and each other layer.
        nan_policy: a NaN becomes 0 (``zero``), the bound (``bound``), or stays (``propagate``,
            what the published code does).
        images: training images to search with.
        validation: further training images, by which is chosen.
        seed: of the choice of images and of all else that a search draws.

    Raises:
        ProgipError: an option has a wrong value.
    """

    sentence: ClassVar[str] = ""
    references: ClassVar[Mapping[str, str]] = {"RReLU": WORKS["RReLU"]}

    replacement: str = "zero"
    slope: float = 20.0
    granularity: str = "layer"
    nan_policy: str = "zero"
    images: int = 1024
    validation: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "replacement": REPLACEMENTS,
            "granularity": GRANULARITIES,
            "nan_policy": NAN_POLICIES,
        }
        check_choices(self, choices)
        check_read(self, f"protection '{self.name}'", {"slope": ("replacement", ("soft_zero",))})
        self._must("slope", self.slope > 0, "must be above 0")
        self._must("images", self.images >= 1, "must be at least 1")
        self._must("validation", self.validation >= 0, "must not be negative")
        self._must("seed", self.seed >= 0, "must not be negative")

    def _must(self, key: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ProgipError(f"protection '{self.name}': {key}={getattr(self, key)} {rule}")

    @abstractmethod
    def search(self, network: nn.Module, data: SearchData, checkpoint: Checkpoint) -> Bounds:
        """The bounds, by call of a ReLU.

        Args:
            network: the unprotected one, in evaluation mode with frozen parameters.
            checkpoint: what an interrupted search of the same content left, and where this one
                leaves what it has. With it the bounds are those of a search that ran through.
        """

    def fit(
        self,
        network: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        checkpoint: Checkpoint | None = None,
    ) -> dict[str, Tensor]:
        """The bounds of every call of a ReLU. Raises ProgipError where one is not finite."""
        data = collected(self.name, batches, self.images, self.validation, self.seed)
        found = self.search(network, data, checkpoint or Checkpoint(None))
        wrong = next((call for call, bound in found.items() if not _finite(bound)), None)
        if wrong is not None:
            raise ProgipError(
                f"layer '{wrong[0]}': its clean outputs are not finite on the training images; the "
                "weights or the normalisation are wrong"
            )
        return {key_of(call, "bound"): bound.detach().cpu() for call, bound in found.items()}

    def protect(self, network: nn.Module, state: State) -> nn.Module:
        return self.with_bounds(network, by_call(state, "bound", network, self.name))

    def with_bounds(self, network: nn.Module, bounds: Mapping[Call, Tensor]) -> nn.Module:
        """A copy with these bounds as parameters: see ``protect``."""
        result, record = shared_copy(network)
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        for (layer, number), bound in bounds.items():
            parameter = nn.Parameter(bound.detach().clone().to(device), requires_grad=False)
            result.get_submodule(layer).register_parameter(_name(number), parameter)
        held = bound_parameters(result)

        def restrict(call: Call, _: object, output: Tensor) -> Tensor | None:
            if call not in held:
                return None
            bound, wanted = held[call], None
            if self.nan_policy == "propagate":
                record.flag(torch.isnan(record.by_row(output.detach())).flatten(1).any(1))
            if self.replacement != "soft_zero":  # rows within their bounds pass as they are
                wanted = _beyond(record.by_row(output.detach()), bound)

            def mended(y: Tensor, rows: Any) -> tuple[Tensor, Tensor]:
                how = self.replacement, self.slope, self.nan_policy
                result, changed = bounded(y, bound, *how)
                if wanted is not None and self.replacement == "clamp":
                    # where y is its bound, the minimum halves the gradient
                    gate = wanted[rows].view(-1, *[1] * (y.dim() - 1))
                    result = torch.where(gate, result, y)
                return result, changed

            found: Tensor | None = record.mend(call, output, wanted, mended)
            return found

        record.calls = len(held)
        hook_calls(result, {layer for layer, _ in held}, restrict, record.start)
        return result


def _name(number: int) -> str:
    return f"bound_{number}"


def bound_parameters(network: nn.Module) -> dict[Call, nn.Parameter]:
    """The bounds of a network that ``BoundedActivation.protect`` made, by call of a ReLU."""
    return {
        (layer, int(name.rpartition("_")[2])): parameter
        for layer, module in network.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith("bound_")
    }


def _beyond(values: Tensor, bound: Tensor) -> Tensor:
    """(n,) bool: rows of (n, ...) not everywhere within the bound; NaN is not within it."""
    rest = tuple(range(1, values.dim()))
    if bound.numel() == 1:  # one comparison a row
        return ~(values.amax(rest) <= bound.reshape(()))
    return ~(values <= bound).all(rest)


def _finite(bound: Tensor) -> bool:
    return bool(torch.isfinite(bound).all())

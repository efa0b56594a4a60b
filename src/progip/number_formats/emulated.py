"""A network that computes in float32, its numbers rounded to those of a format."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.number_formats.base import Batches, NumberFormat
from progip.number_formats.codes import spread
from progip.options import check_read

QUANTISE = ("outputs", "weights", "inputs", "gradients")
ROUNDINGS = ("nearest", "stochastic")
#: attribute of a converted module: the formats of its ``outputs``, ``inputs`` and parameters
HELD = "progip_formats"

_LIBRARY = torch.library.Library("progip", "FRAGMENT")
_LIBRARY.define("quantise(Tensor values, int number) -> Tensor")
_LIBRARY.impl("quantise", lambda v, n: _CONVERSIONS[n](v), "CompositeExplicitAutograd")
CONVERT = torch.ops.progip.quantise.default
#: by a number that names what they do, so that a graph with such numbers can be kept in a file
_CONVERSIONS: dict[int, Callable[[Tensor], Tensor]] = {}


@dataclass(kw_only=True)
class Emulated(NumberFormat):
    """What of a network is held in the format.

    Sums and products are made in float32, as wide accumulators do, and rounded afterwards. The
    gradient passes the rounding itself unchanged (straight-through).

    Attributes:
        quantise: any of ``outputs`` and ``inputs`` of layers, ``weights`` (every parameter), and
            ``gradients`` of the layers' inputs, which a detector's backward pass computes.
        layer_types: classes of the modules that are converted, by name; a class derived from one of
            them counts, too. null: every module without children.
        rounding: ``nearest``, ties to even, or ``stochastic``: up with the probability of the part
            of a step that is left. The random numbers belong to places in a layer, so an image
            gives the same values in every batch.
        seed: of the random numbers.
    """

    quantise: list[str] = field(default_factory=lambda: ["outputs"])
    layer_types: list[str] | None = field(default_factory=lambda: ["Conv2d", "Linear"])
    rounding: str = "nearest"
    seed: int = 0

    def __post_init__(self) -> None:
        owner = f"number_format '{self.name}'"
        if not self.quantise or not set(self.quantise) <= set(QUANTISE):
            raise ProgipError(
                f"{owner}: quantise={list(self.quantise)}: give one or more of "
                + ", ".join(QUANTISE)
            )
        if self.rounding not in ROUNDINGS:
            raise ProgipError(
                f"{owner}: rounding={self.rounding!r} is not one of {', '.join(ROUNDINGS)}"
            )
        check_read(self, owner, {"seed": ("rounding", ("stochastic",))})

    @property
    def profiled(self) -> bool:
        """Whether ``bind`` has to be given the scale of each layer."""
        return False

    def bind(self, scale: float) -> "Emulated":
        """The same format with the largest magnitude of a layer's values; itself by default."""
        return self

    def prepare(self, network: nn.Module, batches: Batches) -> nn.Module:
        """As in the base class: converts the chosen modules in place.

        Raises:
            ProgipError: nothing is chosen, a parameter is not finite, or all outputs of a layer are
                0 where a scale is profiled.
        """
        chosen = [(n, m) for n, m in network.named_modules() if self._chosen(m)]
        if not chosen:
            raise ProgipError(
                f"number_format '{self.name}': the network has no layer of type "
                f"{', '.join(self.layer_types or ['(without children)'])}"
            )
        for name, module in chosen:
            setattr(module, HELD, {})
            if "weights" in self.quantise:
                self._convert_parameters(name, module)
        tensors = [what for what in ("inputs", "outputs", "gradients") if what in self.quantise]
        if self.profiled and "gradients" in tensors:
            raise ProgipError(
                f"number_format '{self.name}': a scale is profiled on training images, which have "
                "no gradients; leave gradients out of number_format.quantise, or give a scale"
            )
        if tensors:
            scales = _scales(network, chosen, batches) if self.profiled else {}
            for name, module in chosen:
                held = getattr(module, HELD)
                for what in tensors:
                    held[what] = self._of_layer(name, what, scales)
                _wrap(
                    module,
                    {
                        w: _Conversion(held[w], f"{name} {w}", self.rounding, self.seed)
                        for w in tensors
                    },
                )
        return network

    def _chosen(self, module: nn.Module) -> bool:
        if self.layer_types is None:
            return next(module.children(), None) is None
        return any(base.__name__ in self.layer_types for base in type(module).__mro__)

    def _convert_parameters(self, name: str, module: nn.Module) -> None:
        for own, parameter in module.named_parameters(recurse=False):
            if not parameter.is_floating_point():
                continue
            values = parameter.detach()
            if not torch.isfinite(values).all():
                raise ProgipError(
                    f"number_format '{self.name}': parameter '{own}' of layer '{name}' holds "
                    "values that are not finite, which no scale fits; check the weight file"
                )
            largest = float(values.abs().max()) if values.numel() else 0.0
            held = self.bind(largest or 1.0)  # zeros are held exactly, whatever the scale
            conversion = _Conversion(held, f"{name} {own}", self.rounding, self.seed)
            values.copy_(conversion(values[None])[0])
            getattr(module, HELD)[own] = held

    def _of_layer(self, name: str, what: str, scales: dict[tuple[str, str], float]) -> NumberFormat:
        if not self.profiled:
            return self
        scale = scales.get((name, what), 0.0)
        if not (scale > 0 and math.isfinite(scale)):
            raise ProgipError(
                f"number_format '{self.name}': the {what} of layer '{name}' are all 0, or not "
                "finite, on the training images, so there is no scale; leave the layer out with "
                "number_format.layer_types, or give number_format.scale"
            )
        return self.bind(scale)


def held_in(module: nn.Module, what: str, usual: NumberFormat) -> NumberFormat:
    """The format of a module's ``outputs``, ``gradients`` or of a parameter, by name."""
    found: NumberFormat = getattr(module, HELD, {}).get(what, usual)
    return found


@dataclass(frozen=True)
class _Conversion:
    """Rounds a batch of tensors of one place to a format."""

    number_format: NumberFormat
    place: str
    rounding: str
    seed: int
    _dithers: dict[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, values: Tensor) -> Tensor:
        metadata = spread(self.number_format.metadata(values), values)
        found = self.number_format.quantised(values, metadata, self._dither(values))
        return values.clone() if found is values else found

    def _dither(self, values: Tensor) -> Tensor | None:
        if self.rounding == "nearest":
            return None
        shape = tuple(values.shape[1:])
        if shape not in self._dithers:
            draw = torch.Generator().manual_seed(_digest(f"{self.seed}|{self.place}"))
            self._dithers[shape] = torch.rand(shape, generator=draw)
        return self._dithers[shape].to(values.device)

    def numbered(self) -> int:
        """Its number in ``_CONVERSIONS``, the same in every process."""
        number = _digest(repr(self))
        while _CONVERSIONS.setdefault(number, self) != self:  # a class of the same name
            number += 1
        return number


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


class _Convert(torch.autograd.Function):
    """Rounds values; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, number: int) -> Tensor:
        found: Tensor = CONVERT(values, number)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], None


class _ConvertGradient(torch.autograd.Function):
    """Passes values; rounds the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, number: int) -> Tensor:
        ctx.number = number
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return CONVERT(gradients[0], ctx.number), None


def _wrap(module: nn.Module, conversions: dict[str, _Conversion]) -> None:
    """Let a module round what it is given and what it gives, before any hook sees it."""
    kind: type[nn.Module] = type(module)
    number = {what: conversion.numbered() for what, conversion in conversions.items()}

    def forward(self: nn.Module, first: Any, *args: Any, **kwargs: Any) -> Any:
        if "gradients" in number and isinstance(first, Tensor) and first.requires_grad:
            first = _ConvertGradient.apply(first, number["gradients"])
        if "inputs" in number and isinstance(first, Tensor):
            first = _Convert.apply(first, number["inputs"])
        output = kind.forward(self, first, *args, **kwargs)
        if "outputs" in number and isinstance(output, Tensor) and output.is_floating_point():
            output = _Convert.apply(output, number["outputs"])
        return output

    module.__class__ = type(
        kind.__name__,
        (kind,),
        {"forward": forward, "__module__": kind.__module__, "__doc__": kind.__doc__},
    )


def _scales(
    network: nn.Module, chosen: list[tuple[str, nn.Module]], batches: Batches
) -> dict[tuple[str, str], float]:
    """The largest magnitude of the inputs and outputs of layers over the training images."""
    found: dict[tuple[str, str], float] = {}

    def hook(name: str) -> Callable[..., None]:
        def look(_: nn.Module, given: Any, output: Any) -> None:
            for what, value in (("inputs", given[0] if given else None), ("outputs", output)):
                if isinstance(value, Tensor) and value.numel():
                    key = (name, what)
                    found[key] = max(found.get(key, 0.0), float(value.detach().abs().max()))

        return look

    handles = [module.register_forward_hook(hook(name)) for name, module in chosen]
    try:
        with torch.no_grad():
            for images in batches():
                network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found

"""Steps that are powers of two, and blocks of values that share one: exact, in float64."""

from abc import abstractmethod
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.number_formats.emulated import Emulated

BLOCKS = ("tensor", "sample", "channel")
LARGEST = torch.finfo(torch.float32).max


def whole(steps: Tensor, dither: Tensor | None) -> Tensor:
    """Numbers rounded to whole ones: to nearest, ties to even, or as ``dither`` says.

    Args:
        steps: float64 where there is dither.
        dither: see ``NumberFormat.quantised``.
    """
    if dither is None:
        return steps.round()
    above = steps.floor() + 1
    # up where steps - floor >= 1 - dither; above - steps is exact also just below 0
    return torch.where(above - steps <= dither, above, above - 1).copysign(steps)


def exponents(values: Tensor) -> Tensor:
    """floor(log2 |x|) of float64 values that float32 holds, int64; -1023 of 0."""
    return ((values.view(torch.int64) >> 52) & 0x7FF) - 1023


def powers(exponents: Tensor) -> Tensor:
    """2^exponent, float64, of int64 exponents from -1022 to 1023."""
    return ((exponents + 1023) << 52).view(torch.float64)


def finite(values: Tensor) -> Tensor:
    """As float64, with 0 for NaN and the largest float32 for infinity."""
    return values.double().nan_to_num(nan=0.0, posinf=LARGEST, neginf=-LARGEST)


def as_float32(values: Tensor) -> Tensor:
    """Rounded to nearest, and the largest float32 where they are beyond it."""
    return values.clamp(-LARGEST, LARGEST).float()


def signed(magnitudes: Tensor, values: Tensor, bits: int) -> Tensor:
    """Sign-magnitude codes, int32: the sign of values, zeros too, as the last of ``bits`` bits."""
    code = magnitudes | (torch.signbit(values).long() << (bits - 1))
    return code.to(torch.int32)  # of 32 bits: the low ones


def unsigned(codes: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Magnitudes, int64, and signs, 1.0 or -1.0 in float64, of sign-magnitude codes."""
    code = codes.long()
    sign = 1.0 - 2.0 * ((code >> (bits - 1)) & 1).double()
    return code & ((1 << (bits - 1)) - 1), sign


@dataclass(kw_only=True)
class Blocks(Emulated):
    """A format whose values share what a register of their block holds.

    Attributes:
        width: of a value in bits: sign, ``exponent`` and the fraction, which is the rest.
        exponent: bits, 2 to 8.
        block: the values that share a register: ``tensor``, all of them, images of a batch too, as
            GoldenEye has it; ``sample``, those of an image; ``channel``, those of one of its
            channels.
    """

    width: int
    exponent: int
    block: str = "sample"

    @property
    @abstractmethod
    def lowest(self) -> int:
        """The least exponent that a block can have."""

    @property
    @abstractmethod
    def highest(self) -> int:
        """The largest exponent that a block can have."""

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = f"number_format '{self.name}'"
        if not 2 <= self.exponent <= 8:
            raise ProgipError(f"{owner}: exponent={self.exponent} bits; give 2 to 8")
        if not 1 <= self.mantissa <= 23:
            raise ProgipError(
                f"{owner}: width={self.width} leaves {self.mantissa} bits of fraction beside the "
                f"sign and exponent={self.exponent} bits; give a width of {self.exponent + 2} to "
                f"{min(self.exponent + 24, 32)}"
            )
        if self.block not in BLOCKS:
            raise ProgipError(f"{owner}: block={self.block!r} is not one of {', '.join(BLOCKS)}")

    @property
    def mantissa(self) -> int:
        """Bits of the fraction."""
        return self.width - 1 - self.exponent

    def metadata(self, rows: Tensor) -> Tensor:
        values = finite(rows).abs()
        channels = self.block == "channel" and rows.ndim >= 3
        blocks = values.reshape(*rows.shape[: 1 + channels], prod(rows.shape[1 + channels :]))
        blocks = blocks if channels else blocks[:, None]
        peak = blocks.amax(-1) if values.numel() else values.new_zeros(blocks.shape[:2])
        if self.block == "tensor" and len(rows):
            peak = peak.amax(0, keepdim=True).expand_as(peak)
        return self._registers(exponents(peak.contiguous()).clamp(self.lowest, self.highest))

    def _exponent(self, values: Tensor, metadata: Tensor | None) -> Tensor:
        """The exponent of each value's block, int64, to broadcast."""
        if metadata is None:
            found = self.metadata(values if values.ndim else values[None])
            shape = (*found.shape, *[1] * (values.ndim - 2))[: max(values.ndim, 1)]
            metadata = found.reshape(shape) if values.ndim else found[0, 0]
        return self._exponents(metadata)

    def _given(self, metadata: Tensor | None) -> Tensor:
        """The same of codes, which do not tell it."""
        if metadata is None:
            raise ValueError(f"{type(self).__name__}.decode needs the registers of the codes")
        return self._exponents(metadata)

    @abstractmethod
    def _registers(self, exponent: Tensor) -> Tensor:
        """The codes, int32, of exponents of blocks, int64."""

    @abstractmethod
    def _exponents(self, metadata: Tensor) -> Tensor:
        """The exponents, int64, that registers hold, whatever their bits are."""

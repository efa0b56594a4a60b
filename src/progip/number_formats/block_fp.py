"""Block floating point: the values of a block share one exponent, which a register holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.described import WORKS
from progip.number_formats.base import BitField
from progip.number_formats.blocks import (
    Blocks,
    as_float32,
    finite,
    powers,
    signed,
    unsigned,
    whole,
)


@dataclass(kw_only=True)
class BlockFP(Blocks):
    """Sign and magnitude, in steps of 2^(E - m) (GoldenEye, section III).

    m = width - 1 - exponent; E = floor(log2 max|x|) of a block, at least -2^(exponent - 1) + 2 and
    at most 2^(exponent - 1) - 1. Values below 2^lowest E are 0; magnitudes saturate at
    2^(m + 1) - 1 steps, so that quantised values have the E they were made with. NaN becomes 0.

    A code has m bits of fraction, one integer bit, without which the largest values of a block had
    no code, and the sign. A register holds E + 2^(exponent - 1) - 1; another E scales the block.
    """

    sentence: ClassVar[str] = (
        "Numbers are held in block floating point: the values of a block share one exponent, that "
        "of the largest of them, and each has a sign and a magnitude of its own [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "GoldenEye": WORKS["GoldenEye"],
    }

    @property
    def lowest(self) -> int:
        return 2 - 2 ** (self.exponent - 1)

    @property
    def highest(self) -> int:
        return 2 ** (self.exponent - 1) - 1

    @property
    def bits(self) -> int:
        return self.mantissa + 2

    @property
    def fields(self) -> tuple[BitField, ...]:
        m = self.mantissa
        return (
            BitField("fraction", 0, m - 1),
            BitField("integer", m, m),
            BitField("sign", m + 1, m + 1),
        )

    @property
    def metadata_fields(self) -> tuple[BitField, ...]:
        return (BitField("exponent", 0, self.exponent - 1),)

    def _registers(self, exponent: Tensor) -> Tensor:
        return (exponent + self.highest).to(torch.int32)

    def _exponents(self, metadata: Tensor) -> Tensor:
        return (metadata.long() & (2**self.exponent - 1)) - self.highest

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        steps = self._steps(values.double(), self._exponent(values, metadata), None)
        return signed(steps.abs().long(), values, self.bits)

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        magnitude, sign = unsigned(codes, self.bits)
        return as_float32(sign * magnitude * powers(self._given(metadata) - self.mantissa))

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        exponent = self._exponent(values, metadata)
        real = finite(values)
        real = torch.where(real.abs() < 2.0**self.lowest, real * 0, real)
        steps = self._steps(real, exponent, dither)
        return as_float32(steps * powers(exponent - self.mantissa))

    def _steps(self, values: Tensor, exponent: Tensor, dither: Tensor | None) -> Tensor:
        most = 2.0 ** (self.mantissa + 1) - 1
        return whole(values * powers(self.mantissa - exponent), dither).clamp(-most, most)

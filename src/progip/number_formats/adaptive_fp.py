"""Adaptive floating point: the bias of the exponents follows the largest value of a block."""

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
    exponents,
    finite,
    powers,
    signed,
    unsigned,
    whole,
)


@dataclass(kw_only=True)
class AdaptiveFP(Blocks):
    """Floats of m = width - 1 - exponent bits of fraction (GoldenEye, section III; AdaptivFloat).

    Emax = floor(log2 max|x|) of a block, and Emin = Emax - (2^exponent - 3). Values below 2^Emin
    are 0, there being no subnormal ones, and those above (2 - 2^-m) 2^Emax are that. NaN becomes 0.

    The exponent of a value is its field - (2^(exponent - 1) - 1) - bias, and field 0 is zero, of
    whatever fraction. The field of all ones is beyond Emax: faults alone lead there, to the plain
    value, or to the largest float32. The register holds the bias, 2^(exponent - 1) - 1 - Emax, in
    8 bits of two's complement, which bound Emax, too.
    """

    sentence: ClassVar[str] = (
        "Numbers are held in adaptive floating point: each has a sign, an exponent and a fraction, "
        "and the bias of the exponents is that of the largest value of a block [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "GoldenEye": WORKS["GoldenEye"],
    }

    @property
    def lowest(self) -> int:
        return self._centre - 127

    @property
    def highest(self) -> int:
        return min(self._centre + 128, 127)

    @property
    def _centre(self) -> int:
        """Emax with a bias of 0."""
        return 2 ** (self.exponent - 1) - 1

    @property
    def bits(self) -> int:
        return self.width

    @property
    def fields(self) -> tuple[BitField, ...]:
        m, last = self.mantissa, self.width - 1
        return (
            BitField("fraction", 0, m - 1),
            BitField("exponent", m, last - 1),
            BitField("sign", last, last),
        )

    @property
    def metadata_fields(self) -> tuple[BitField, ...]:
        return (BitField("bias", 0, 7),)

    def _registers(self, exponent: Tensor) -> Tensor:
        return ((self._centre - exponent) & 0xFF).to(torch.int32)

    def _exponents(self, metadata: Tensor) -> Tensor:
        bias = ((metadata.long() & 0xFF) ^ 0x80) - 0x80
        return self._centre - bias

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        below = self._exponent(values, metadata) - (2**self.exponent - 2)  # that of field 0
        m = self.mantissa
        step = powers(exponents(values.double()).clamp(min=-500) - m)
        real = whole(values.double() / step, None) * step  # the largest float32 may have no code
        field = exponents(real) - below
        fraction = (real.abs() * powers(m - exponents(real).clamp(min=-500))).long() - 2**m
        code = ((field << m) | fraction).clamp(max=2 ** (self.width - 1) - 1)
        return signed(torch.where(field < 1, 0, code), values, self.bits)

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        magnitude, sign = unsigned(codes, self.bits)
        m = self.mantissa
        field = magnitude >> m
        exponent = field - (2**self.exponent - 2) + self._given(metadata)
        size = ((magnitude & (2**m - 1)) + 2**m).double() * powers(exponent - m)
        return as_float32(sign * torch.where(field == 0, 0.0, size))

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        highest = self._exponent(values, metadata)
        real = finite(values)
        own = exponents(real)
        step = powers(own.clamp(min=-500) - self.mantissa)
        most = powers(highest) * (2 - 2.0**-self.mantissa)
        rounded = (whole(real / step, dither) * step).clamp(-most, most)
        lost = own < highest - (2**self.exponent - 3)
        return as_float32(torch.where(lost, real * 0, rounded))

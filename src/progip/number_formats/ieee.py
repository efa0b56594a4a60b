"""Floating point formats as IEEE 754 has them, of any widths that float32 holds."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.number_formats.base import BitField
from progip.number_formats.blocks import exponents, powers, whole
from progip.number_formats.emulated import Emulated

NATIVE = {(5, 10): torch.float16, (8, 7): torch.bfloat16, (8, 23): torch.float32}
MAGNITUDE = 0x7FFFFFFF
INFINITE = 0x7F800000  # words above are NaN


@dataclass(kw_only=True)
class Ieee(Emulated):
    """Sign, exponent with a bias of 2^(exponent - 1) - 1, fraction after an implicit one.

    Subnormal numbers are 0.fraction * 2^(1 - bias). The highest exponent is infinity and NaN, as in
    IEEE 754 (2019), section 3.4; of a ``finite`` format it is that of numbers, too, and only the
    code of all ones is NaN (OCP 8-bit floating point, E4M3). What is too large becomes infinity, or
    NaN where there is none.

    Attributes:
        exponent: bits, 2 to 8.
        fraction: bits, 1 to 23; 5 and 10: fp16, 8 and 7: bf16.
        finite: no infinity, and one more power of two; of at most 7 bits of exponent.
        saturate: what is too large, infinity too, becomes the largest number.
    """

    sentence: ClassVar[str] = (
        "Numbers are held in an IEEE-like format of a sign, a biased exponent and a fraction after "
        "an implicit one, with subnormal numbers."
    )

    exponent: int
    fraction: int
    finite: bool = False
    saturate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = f"number_format '{self.name}'"
        if self.exponent == 1:
            raise ProgipError(
                f"{owner}: exponent=1 bit has no normal numbers, zero and infinity take both of "
                "its codes; give 2 to 8"
            )
        if not 2 <= self.exponent <= 8:
            raise ProgipError(f"{owner}: exponent={self.exponent} bits; give 2 to 8")
        if not 1 <= self.fraction <= 23:
            raise ProgipError(f"{owner}: fraction={self.fraction} bits; give 1 to 23")
        if self.finite and self.exponent == 8:
            raise ProgipError(
                f"{owner}: finite=true with exponent=8 bits has numbers that float32 does not "
                "hold; give an exponent of 2 to 7, or finite=false"
            )

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.fraction

    @property
    def fields(self) -> tuple[BitField, ...]:
        m, last = self.fraction, self.bits - 1
        return (
            BitField("fraction", 0, m - 1),
            BitField("exponent", m, last - 1),
            BitField("sign", last, last),
        )

    @property
    def _lowest(self) -> int:
        """The exponent of the smallest normal numbers, and of all smaller ones."""
        return 2 - 2 ** (self.exponent - 1)

    @property
    def _most(self) -> int:
        """The code of the largest number."""
        ones = 2 ** (self.bits - 1) - 1
        return ones - 1 if self.finite else ones - 2**self.fraction

    @property
    def _unheld(self) -> int:
        """Bits of a float32 fraction that codes have not."""
        return 23 - self.fraction

    @property
    def _rebias(self) -> int:
        """What float32 words have in their exponent above that of codes, in its place."""
        return (self._lowest + 126) << 23

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        word = values.view(torch.int32)
        size = word & MAGNITUDE
        code = (size - self._rebias) >> self._unheld
        if self.exponent < 8:  # else subnormal numbers are those of float32
            small = values.abs() * 2.0 ** (self.fraction - self._lowest)
            code = torch.where(size < self._rebias + 2**23, small.to(torch.int32), code)
        ones = 2 ** (self.bits - 1) - 1
        if self.finite:
            code = torch.where(size >= INFINITE, ones, code)
        else:
            payload = (size & 0x7FFFFF) >> self._unheld
            quiet = 2 ** (self.fraction - 1)
            payload = torch.where((size > INFINITE) & (payload == 0), quiet, payload)
            code = torch.where(size >= INFINITE, self._most + 1 + payload, code)
        return code | (((word >> 31) & 1) << (self.bits - 1))

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        size = codes & (2 ** (self.bits - 1) - 1)
        word = (size << self._unheld) + self._rebias
        if self.exponent < 8:
            small = size.float() * 2.0 ** (self._lowest - self.fraction)
            word = torch.where(size < 2**self.fraction, small.view(torch.int32), word)
            special = INFINITE + ((size - self._most - 1) << self._unheld)
            special = special + 2**22 if self.finite else special
            word = torch.where(size > self._most, special, word)
        sign = (codes >> (self.bits - 1)) & 1
        return (word | (sign << 31)).view(torch.float32)

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        native = NATIVE.get((self.exponent, self.fraction))
        if dither is None and native is not None and not self.finite and not self.saturate:
            return values.to(native).float()
        rounded = self._nearest(values) if dither is None else self._dithered(values, dither)
        return self._within(rounded, values)

    def _nearest(self, values: Tensor) -> Tensor:
        """To the precision of the format, of any size; NaN as it may be."""
        word, unheld = values.view(torch.int32), self._unheld
        if unheld:
            odd = (word >> unheld) & 1
            word = (word + (odd + (2 ** (unheld - 1) - 1))) & -(2**unheld)  # carries as it should
        rounded = word.view(torch.float32)
        if self.exponent < 8:  # else words are subnormal where values are
            size = values.abs()
            shift = 2.0 ** (self._lowest + unheld)  # float32 has the steps of subnormals here
            small = torch.copysign((size + shift) - shift, values)
            rounded = torch.where(size < 2.0**self._lowest, small, rounded)
        return rounded

    def _dithered(self, values: Tensor, dither: Tensor) -> Tensor:
        """The same, rounded as ``dither`` says."""
        real = values.double()
        step = powers(exponents(real).clamp(self._lowest, 127) - self.fraction)
        return (whole(real / step, dither) * step).float()

    def _within(self, rounded: Tensor, values: Tensor) -> Tensor:
        """Rounded values that are not too large; NaN as it was."""
        most = self.decode(torch.tensor(self._most, dtype=torch.int32)).item()
        if self.saturate:
            bounded = rounded.clamp(-most, most)
        else:
            beyond = torch.nan if self.finite else torch.inf
            outside = torch.full_like(rounded, beyond).copysign(rounded)
            bounded = torch.where(rounded.abs() > most, outside, rounded)
        return torch.where(values.isnan(), values, bounded)

"""Fixed point: two's complement words with the point at one place for all values."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.number_formats.base import BitField
from progip.number_formats.blocks import whole
from progip.number_formats.emulated import Emulated
from progip.options import check_read


@dataclass(kw_only=True)
class FixedPoint(Emulated):
    """Multiples of 2^-fraction, which saturate; NaN becomes 0, as Arm's conversions have it.

    The range is -2^(word - 1 - fraction) to 2^(word - 1 - fraction) - 2^-fraction. Of words longer
    than 25 bits float32 does not tell all codes apart: a value has the code nearest to it, and
    2^(word - 1 - fraction) stands for the largest one.

    Attributes:
        word: bits, 2 to 32.
        fraction: how many of them are behind the point, less than ``word``.
        truncate: round toward zero, as fxpmath does where nothing is said; false: to nearest.
    """

    sentence: ClassVar[str] = (
        "Numbers are held in fixed point: words of two's complement with a fraction of a set "
        "number of bits, which saturate at the ends of their range."
    )

    word: int
    fraction: int
    truncate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = f"number_format '{self.name}'"
        check_read(self, owner, {"truncate": ("rounding", ("nearest",))})
        if not 2 <= self.word <= 32:
            raise ProgipError(f"{owner}: word={self.word} bits; give 2 to 32")
        if self.fraction < 0:
            raise ProgipError(f"{owner}: fraction={self.fraction} bits; give 0 to {self.word - 1}")
        if self.fraction >= self.word:
            raise ProgipError(
                f"{owner}: fraction={self.fraction} bits are wider than the word, whose "
                f"{self.word} bits have a sign, too; give 0 to {self.word - 1}"
            )

    @property
    def bits(self) -> int:
        return self.word

    @property
    def fields(self) -> tuple[BitField, ...]:
        last = self.word - 1
        parts = (
            BitField("fraction", 0, self.fraction - 1),
            BitField("integer", self.fraction, last - 1),
            BitField("sign", last, last),
        )
        return tuple(part for part in parts if part.low <= part.high)

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        most = 2 ** (self.word - 1)
        steps = (values.double().nan_to_num(nan=0.0) * 2.0**self.fraction).round()
        code = steps.clamp(-most, most - 1).long()
        return (code if self.word == 32 else code & (2 * most - 1)).to(torch.int32)

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        unread = 32 - self.word
        code = (codes << unread) >> unread  # with its sign
        return (code.double() * 2.0**-self.fraction).float()

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        most = 2.0 ** (self.word - 1)
        steps = values * 2.0**self.fraction  # exact in float32, and so is all that follows
        if dither is not None:
            steps = whole(steps.double(), dither).float()
        elif self.truncate:
            steps = steps.trunc()
        else:
            steps = steps.round()
        steps = steps.nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return steps.clamp(-most, most - 1) * 2.0**-self.fraction + 0.0  # + 0: there is no -0

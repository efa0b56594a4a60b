"""What a fault at a rate does to a value it hits: which bits of its code it flips."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.described import WORKS
from progip.errors import ProgipError
from progip.fault_models.at_rate import AtRate
from progip.fault_models.base import BITS
from progip.fault_models.bits import check_bits, check_count, chosen_bits
from progip.fault_models.random import integers
from progip.number_formats.base import NumberFormat


@dataclass(kw_only=True)
class DistinctBits(AtRate):
    """A hit flips ``number`` distinct bits, every choice of them equally likely.

    Attributes:
        number: of bits, 1 to 32; six in the source (ResNet experiments).
    """

    sentence: ClassVar[str] = (
        "Each run hits every value of the chosen layers independently, with the same small "
        "probability; a hit flips several distinct bits of its code [Amarnath]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Amarnath": WORKS["Amarnath"],
    }

    number: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.number <= BITS:
            raise ProgipError(
                f"fault_model '{self.name}': number={self.number} bits of a word of {BITS}; give 1 "
                f"to {BITS}"
            )

    @property
    def draws(self) -> int:  # type: ignore[override]
        return self.number

    def check_format(self, number_format: NumberFormat) -> None:
        check_count(self.name, "number", self.number, number_format)

    def _masks(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        word, hits, steps = number_format.bits, len(uniform), np.arange(self.number)
        chosen = steps + integers(uniform, word - steps)
        order = np.repeat(np.uint32(1) << np.arange(word, dtype=np.uint32), hits)
        mask = np.zeros(hits, dtype=np.uint32)
        for i in range(self.number):  # the first steps of a Fisher-Yates shuffle of the bits
            place = chosen[:, i] * hits + np.arange(hits)
            mask |= order[place]
            order[place] = order[i * hits : (i + 1) * hits]
        return mask


@dataclass(kw_only=True)
class OneBit(AtRate):
    """A hit flips one bit.

    Attributes:
        bits: of a value's code that can be hit, uniformly; 0 is the least significant. null: all.
        fields: in place of bits, names of fields of the number format: [exponent].
    """

    sentence: ClassVar[str] = (
        "Each run hits every value of the chosen layers independently, with the same small "
        "probability; a hit flips one bit of its code."
    )

    bits: list[int] | None = None
    fields: list[str] | None = None

    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bits(self.name, self.bits, self.fields)

    def check_format(self, number_format: NumberFormat) -> None:
        chosen_bits(self.name, self.bits, self.fields, number_format)

    def _masks(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        bits = chosen_bits(self.name, self.bits, self.fields, number_format).astype(np.uint32)
        return np.uint32(1) << bits[integers(uniform[:, 0], len(bits))]


@dataclass(kw_only=True)
class Burst(AtRate):
    """A hit flips ``length`` adjacent bits, every place of them in the word equally likely.

    Attributes:
        length: of the burst in bits, 1 to 32.
    """

    sentence: ClassVar[str] = (
        "Each run hits every value of the chosen layers independently, with the same small "
        "probability; a hit flips adjacent bits of its code."
    )

    length: int = 2

    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.length <= BITS:
            raise ProgipError(
                f"fault_model '{self.name}': length={self.length} bits of a word of {BITS}; give 1 "
                f"to {BITS}"
            )

    def check_format(self, number_format: NumberFormat) -> None:
        check_count(self.name, "length", self.length, number_format)

    def _masks(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        first = integers(uniform[:, 0], number_format.bits - self.length + 1)
        burst = (np.int64(1) << self.length) - 1
        return (burst << first).astype(np.uint32)


@dataclass(kw_only=True)
class WordError(AtRate):
    """A hit flips a random bit, and errors spread from it: the source's VGG-16 experiments.

    Every bit next to a flipped one flips, too, with probability ``spread``, outwards on both sides
    and each side on its own, until one does not flip or the word ends.

    Attributes:
        spread: 0 to 1; .75 in the source, which flips 6.25 bits on average.
    """

    sentence: ClassVar[str] = (
        "Each run hits every value of the chosen layers independently, with the same small "
        "probability; a hit flips a bit of its code, from which errors spread to its "
        "neighbours [Amarnath]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Amarnath": WORKS["Amarnath"],
    }

    spread: float = 0.75

    draws: ClassVar[int] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.spread <= 1:
            raise ProgipError(
                f"fault_model '{self.name}': spread={self.spread} is not a probability; give 0 to 1"
            )

    def _masks(self, uniform: np.ndarray, number_format: NumberFormat) -> np.ndarray:
        word = number_format.bits
        centre = integers(uniform[:, 0], word)
        reached = self.spread ** np.arange(1, word)  # probability of at least so many steps
        below = np.minimum((uniform[:, 1:2] < reached).sum(1), centre)
        above = np.minimum((uniform[:, 2:3] < reached).sum(1), word - 1 - centre)
        ones = (np.int64(1) << (below + above + 1)) - 1
        return (ones << (centre - below)).astype(np.uint32)

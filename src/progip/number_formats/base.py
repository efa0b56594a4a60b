"""What a number format is: how values become codes of bits, and codes become values."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from progip.described import Described


@dataclass(frozen=True)
class BitField:
    """Bits of a code that mean one thing: ``exponent``, bits ``low`` to ``high``."""

    name: str
    low: int
    high: int


@dataclass(kw_only=True)
class NumberFormat(Described, ABC):
    """One format; the dataclass fields of a subclass are the options of its YAML file.

    Tensors hold the values of the format as numbers of ``dtype``; a fault flips bits of a value's
    code. ``decode(encode(x)) == x``, bit for bit, for every x that ``quantise`` gives.

    Attributes:
        name: what result rows call it; the name of its YAML file.

    Class attributes:
        bits: of a code, at most 32.
        fields: what they mean, from the least significant on; together they are all bits.
        dtype: of the tensors that hold such values.
    """

    name: str

    bits: ClassVar[int]
    fields: ClassVar[tuple[BitField, ...]]
    dtype: ClassVar[torch.dtype] = torch.float32

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Codes of values of the format, int32, the same shape; bit 0 is the least significant."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """The values of codes, of ``dtype``, the same shape."""

    @abstractmethod
    def quantise(self, values: Tensor) -> Tensor:
        """The nearest values of the format."""

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network computing in this format; by default itself, where that is what it does."""
        return network

    def described(self) -> dict[str, Any]:
        """For a manifest: bits, and what they mean."""
        fields = [asdict(field) for field in self.fields]
        return {"name": self.name, "bits": self.bits, "fields": fields}

"""What a number format is: how values become codes of bits, and codes become values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from progip.described import Described

#: gives batches of normalised training images
Batches = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class BitField:
    """Bits of a code that mean one thing: ``exponent``, bits ``low`` to ``high``."""

    name: str
    low: int
    high: int


@dataclass(kw_only=True)
class NumberFormat(Described, ABC):
    """One format; the dataclass fields of a subclass are the options of its YAML file.

    Tensors hold the values of the format as float32; a fault flips bits of a value's code.
    ``decode(encode(x)) == x``, bit for bit, for every x that ``quantised`` gives.

    Values may share *metadata* (a scale, an exponent, a bias), which lies in a register of its own:
    ``metadata`` gives the codes of these registers, and all other methods take them.

    Attributes:
        name: what result rows call it; the name of its YAML file.
        bits: of a code, at most 32.
        fields: what they mean, from the least significant on; together they are all bits.

    Class attributes:
        dtype: of the tensors that hold such values.
    """

    name: str

    @property
    @abstractmethod
    def bits(self) -> int: ...

    @property
    @abstractmethod
    def fields(self) -> tuple[BitField, ...]: ...

    dtype: ClassVar[torch.dtype] = torch.float32

    @property
    def metadata_fields(self) -> tuple[BitField, ...]:
        """What the bits of a metadata register mean; () for a format without metadata."""
        return ()

    @property
    def metadata_bits(self) -> int:
        """Of a register; 0 for a format without metadata."""
        return sum(part.high - part.low + 1 for part in self.metadata_fields)

    def metadata(self, rows: Tensor) -> Tensor | None:
        """The registers of rows of values, (n, blocks) int32; None for a format without metadata.

        A row has one block, or as many as its first dimension is long (channels), and what a block
        needs follows from its own values. Quantised rows give the registers they were made with.

        Args:
            rows: (n, ...) float32.
        """
        return None

    def metadata_values(self, metadata: Tensor) -> Tensor:
        """What registers stand for, float32: by default their codes as numbers."""
        return metadata.float()

    @abstractmethod
    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Codes of values of the format, int32, the same shape; bit 0 is the least significant.

        Args:
            metadata: the register of each value, broadcast to their shape.
        """

    @abstractmethod
    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        """The values of codes, of ``dtype``, the same shape."""

    @abstractmethod
    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        """The nearest values of the format, ties to even.

        Args:
            dither: numbers in [0, 1), one a value: rounded down where the part of a step above the
                next lower value is less than 1 - dither, else up (stochastic rounding, where they
                are random); None: to nearest.
        """

    def prepare(self, network: nn.Module, batches: Batches) -> nn.Module:
        """The network computing in this format; by default itself, where that is what it does.

        Args:
            batches: of training images, for what is profiled.
        """
        return network

    def described(self) -> dict[str, Any]:
        """For a manifest: bits, and what they mean."""
        fields = [asdict(field) for field in self.fields]
        described: dict[str, Any] = {"name": self.name, "bits": self.bits, "fields": fields}
        if self.metadata_fields:
            described["metadata"] = [asdict(field) for field in self.metadata_fields]
        return described

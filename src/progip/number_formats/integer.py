"""Integers with a scale for each layer, which a register holds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from progip.described import WORKS
from progip.errors import ProgipError
from progip.number_formats.base import BitField
from progip.number_formats.blocks import whole
from progip.number_formats.emulated import Emulated


@dataclass(kw_only=True)
class Integer(Emulated):
    """Two's complement integers c, which stand for c R / 2^(width - 1) (GoldenEye, section III).

    R is the scale: the largest magnitude that a layer gives on training images. Beyond it values
    saturate; NaN becomes 0. The register holds R as a float32 word, and decoding multiplies with
    what it holds: infinite and NaN scales give infinite and NaN values.

    Attributes:
        width: bits of a code, 2 to 16: float32 holds the products with wider ones no longer apart.
        scale: R, positive; null: profiled for each layer.
    """

    sentence: ClassVar[str] = (
        "Numbers are held as two's complement integers with one scale for each layer, the largest "
        "magnitude that the layer gives on training images [GoldenEye]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "GoldenEye": WORKS["GoldenEye"],
    }

    width: int
    scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = f"number_format '{self.name}'"
        if not 2 <= self.width <= 16:
            raise ProgipError(f"{owner}: width={self.width} bits; give 2 to 16")
        if self.scale is not None:
            with np.errstate(over="ignore"):
                held = float(np.float32(self.scale))
            if not (held > 0 and math.isfinite(held)):
                raise ProgipError(
                    f"{owner}: scale={self.scale} is not a positive float32; give the largest "
                    "magnitude of the values, or null: profiled for each layer"
                )

    @property
    def profiled(self) -> bool:
        """Unless a scale is given."""
        return self.scale is None

    def bind(self, scale: float) -> "Integer":
        """The same format with a layer's scale."""
        return replace(self, scale=scale)

    @property
    def bits(self) -> int:
        return self.width

    @property
    def fields(self) -> tuple[BitField, ...]:
        last = self.width - 1
        return (BitField("integer", 0, last - 1), BitField("sign", last, last))

    @property
    def metadata_fields(self) -> tuple[BitField, ...]:
        return (
            BitField("fraction", 0, 22),
            BitField("exponent", 23, 30),
            BitField("sign", 31, 31),
        )

    def metadata(self, rows: Tensor) -> Tensor:
        return torch.full((len(rows), 1), self._word(), dtype=torch.int32, device=rows.device)

    def metadata_values(self, metadata: Tensor) -> Tensor:
        """The scale itself."""
        return metadata.view(torch.float32)

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        steps = self._steps(values, self._step(values, metadata), None)
        return (steps.long() & (2**self.width - 1)).to(torch.int32)

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        unread = 32 - self.width
        code = (codes << unread) >> unread  # with its sign
        return (code.double() * self._step(codes, metadata)).float() + 0.0  # + 0: no -0

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        step = self._step(values, metadata)
        return (self._steps(values, step, dither) * step).float() + 0.0

    def _steps(self, values: Tensor, step: Tensor, dither: Tensor | None) -> Tensor:
        most = 2 ** (self.width - 1)
        return whole(values.double() / step, dither).nan_to_num(nan=0.0).clamp(-most, most - 1)

    def _step(self, values: Tensor, metadata: Tensor | None) -> Tensor:
        """R / 2^(width - 1), float64, to broadcast: products with codes are rounded once."""
        if metadata is None:
            metadata = torch.tensor(self._word(), dtype=torch.int32, device=values.device)
        return metadata.view(torch.float32).double() * 2.0 ** (1 - self.width)

    def _word(self) -> int:
        if self.scale is None:
            raise ProgipError(
                f"number_format '{self.name}': scale is null, which is profiled for each layer; "
                "bind the layer's, or give one"
            )
        return int(np.float32(self.scale).view(np.int32))

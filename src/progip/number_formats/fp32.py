"""IEEE 754 binary32, what PyTorch computes in: the format of the ProGIP source."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.number_formats.base import BitField, NumberFormat


@dataclass(kw_only=True)
class Float32(NumberFormat):
    """A code is the 32-bit word of the float itself; NaN payloads are kept."""

    bits: ClassVar[int] = 32
    fields: ClassVar[tuple[BitField, ...]] = (
        BitField("fraction", 0, 22),
        BitField("exponent", 23, 30),
        BitField("sign", 31, 31),
    )

    def encode(self, values: Tensor, metadata: Tensor | None = None) -> Tensor:
        return values.view(torch.int32)

    def decode(self, codes: Tensor, metadata: Tensor | None = None) -> Tensor:
        return codes.view(torch.float32)

    def quantised(
        self, values: Tensor, metadata: Tensor | None = None, dither: Tensor | None = None
    ) -> Tensor:
        return values


FP32 = Float32(name="fp32")

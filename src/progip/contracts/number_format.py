"""The contract of a number format: codes of bits for values, and back, without loss."""

import torch
from torch import Tensor

from progip.contracts.broken import Owner
from progip.number_formats.base import NumberFormat

MOST_CODES = 2**16  # tried one by one; of longer codes as many, chosen at random


def check_number_format(number_format: NumberFormat) -> None:
    """Check all that flipping bits and reports rely on.

    Every code decodes to a value that encodes to it again, or, where several codes are one value
    (NaN), to one that decodes to the same; values that ``quantise`` gives survive encoding bit for
    bit; quantising twice changes nothing; fields cover every bit once, from the least significant
    on; shapes and types are those declared.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(number_format)
    owner.check_options()
    bits = number_format.bits
    owner.must(0 < bits <= 32, f"has {bits} bits; codes have 1 to 32")
    covered = [bit for part in number_format.fields for bit in range(part.low, part.high + 1)]
    owner.must(covered == list(range(bits)), f"has fields that are not the bits 0 to {bits - 1}")
    draw = torch.Generator().manual_seed(6)
    every = torch.arange(min(2**bits, MOST_CODES))
    if 2**bits > MOST_CODES:
        every = torch.randint(0, 2**bits, (MOST_CODES,), generator=draw)
    codes = _int32(every)
    values = number_format.decode(codes)
    owner.must(
        values.shape == codes.shape and values.dtype == number_format.dtype,
        f"must decode to {number_format.dtype} of the same shape",
    )
    back = number_format.encode(values)
    owner.must(
        back.shape == codes.shape and back.dtype == torch.int32,
        "must encode to int32 of the same shape",
    )
    known = ~torch.isnan(values) & (values != 0)
    owner.must(
        torch.equal(back[known], codes[known]), "encodes a value to another code than its own"
    )
    owner.must(
        _same(number_format.decode(back), values), "loses values: decode(encode(x)) is not x"
    )
    some = torch.randn(4096, generator=draw).to(number_format.dtype) * 100
    some[:4] = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan])
    quantised = number_format.quantise(some)
    owner.must(
        _same(number_format.quantise(quantised), quantised), "quantises to other values twice"
    )
    kept = number_format.decode(number_format.encode(quantised))
    owner.must(
        _same(kept, quantised), "does not keep what it quantises: decode(encode(x)) is not x"
    )


def _int32(codes: Tensor) -> Tensor:
    """Codes below 2^32 as the int32 of the same bits."""
    return torch.where(codes >= 2**31, codes - 2**32, codes).to(torch.int32)


def _same(one: Tensor, other: Tensor) -> bool:
    return bool(((one == other) | (torch.isnan(one) & torch.isnan(other))).all())

"""The contract of a number format: codes of bits for values, and back, without loss."""

import torch
from torch import Tensor

from progip.contracts.broken import Owner
from progip.number_formats.base import BitField, NumberFormat

MOST_CODES = 2**16  # tried one by one; of longer codes as many, chosen at random
HELD = 24  # bits that float32 tells apart, but for the smallest values, and where it ends
LIMITS = torch.finfo(torch.float32)


def check_number_format(number_format: NumberFormat) -> None:
    """Check all that flipping bits and reports rely on.

    Every code decodes to a value that encodes to it again, or, where several codes are one value
    (NaN, zeros, those of more bits than float32 tells apart), to one that decodes to the same;
    values that ``quantised`` gives survive encoding bit for bit; quantising twice changes nothing,
    and quantised rows have the metadata registers they were made with; fields cover every bit once,
    from the least significant on; shapes and types are those declared.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(number_format)
    owner.check_options()
    bits = number_format.bits
    owner.must(0 < bits <= 32, f"has {bits} bits; codes have 1 to 32")
    owner.must(
        _covered(number_format.fields) == list(range(bits)),
        f"has fields that are not the bits 0 to {bits - 1}",
    )
    rows = _rows().to(number_format.dtype)
    registers = _check_metadata(owner, number_format, rows)
    _check_codes(owner, number_format, registers)
    spread = None if registers is None else registers[:, :, None]
    quantised = number_format.quantised(rows, spread)
    owner.must(
        quantised.shape == rows.shape and quantised.dtype == number_format.dtype,
        f"must quantise to {number_format.dtype} of the same shape",
    )
    again = number_format.quantised(quantised, spread)
    owner.must(_same(again, quantised), "quantises to other values twice")
    kept = number_format.decode(number_format.encode(quantised, spread), spread)
    owner.must(
        _same(kept, quantised), "does not keep what it quantises: decode(encode(x)) is not x"
    )
    if registers is not None:
        found = number_format.metadata(quantised)
        owner.must(
            found is not None and torch.equal(found, registers),
            "finds other metadata in quantised rows than they were made with",
        )


def _rows() -> Tensor:
    """(8, 3, 256): of different sizes, with zeros, infinities and NaN in some, one all zero."""
    draw = torch.Generator().manual_seed(6)
    rows = torch.randn(8, 3, 256, generator=draw) * 10.0 ** torch.arange(-4, 4)[:, None, None]
    rows[0] = 0
    rows[5, 0, :2] = torch.tensor([0.0, -0.0])
    rows[6, 1, :2] = torch.tensor([torch.inf, torch.nan])
    rows[7, 2, 0] = -torch.inf
    return rows


def _check_metadata(owner: Owner, number_format: NumberFormat, rows: Tensor) -> Tensor | None:
    """The registers of the rows."""
    bits = number_format.metadata_bits
    registers = number_format.metadata(rows)
    owner.must(
        (registers is not None) == (bits > 0), "must have metadata where it has metadata_fields"
    )
    if registers is None:
        return None
    owner.must(bits <= 32, f"has metadata of {bits} bits; registers have 1 to 32")
    owner.must(
        _covered(number_format.metadata_fields) == list(range(bits)),
        f"has metadata_fields that are not the bits 0 to {bits - 1}",
    )
    n, channels = rows.shape[:2]
    owner.must(
        registers.dtype == torch.int32 and registers.shape in ((n, 1), (n, channels)),
        "must give metadata as int32, (n, 1) or (n, channels)",
    )
    unused = 0 if bits == 32 else -(2**bits)
    owner.must(not (registers & unused).any(), f"gives metadata that does not fit its {bits} bits")
    return registers


def _check_codes(owner: Owner, number_format: NumberFormat, registers: Tensor | None) -> None:
    bits = number_format.bits
    draw = torch.Generator().manual_seed(6)
    every = torch.arange(min(2**bits, MOST_CODES))
    if 2**bits > MOST_CODES:
        every = torch.randint(0, 2**bits, (MOST_CODES,), generator=draw)
    codes = _int32(every)
    each = None
    if registers is not None:
        each = registers.flatten().unique()[:, None]
        codes = codes.repeat(len(each), 1)
    values = number_format.decode(codes, each)
    owner.must(
        values.shape == codes.shape and values.dtype == number_format.dtype,
        f"must decode to {number_format.dtype} of the same shape",
    )
    back = number_format.encode(values, each)
    owner.must(
        back.shape == codes.shape and back.dtype == torch.int32,
        "must encode to int32 of the same shape",
    )
    held = (values.abs() >= LIMITS.smallest_normal) & (values.abs() != LIMITS.max)
    own = (back == codes) | ~held
    kept = number_format.decode(back, each)
    if bits > HELD:
        own |= kept == values
    owner.must(bool(own.all()), "encodes a value to another code than its own")
    owner.must(_same(kept, values), "loses values: decode(encode(x)) is not x")


def _covered(fields: tuple[BitField, ...]) -> list[int]:
    return [bit for part in fields for bit in range(part.low, part.high + 1)]


def _int32(codes: Tensor) -> Tensor:
    """Codes below 2^32 as the int32 of the same bits."""
    return torch.where(codes >= 2**31, codes - 2**32, codes).to(torch.int32)


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit for bit, whatever the bits of a NaN are."""
    equal = (one == other) & (torch.signbit(one) == torch.signbit(other))
    return bool((equal | (torch.isnan(one) & torch.isnan(other))).all())

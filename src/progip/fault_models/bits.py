"""Options that name bits of a code, or its fields."""

import numpy as np

from progip.errors import ProgipError
from progip.fault_models.base import BITS
from progip.number_formats.base import NumberFormat


def check_bits(owner: str, bits: list[int] | None, fields: list[str] | None = None) -> None:
    """Raise ProgipError unless ``bits`` are distinct bits of a word, at least one; None: all.

    Args:
        fields: named instead of bits.
    """
    if bits is not None and fields is not None:
        raise ProgipError(f"fault_model '{owner}': give bits or fields, not both")
    if fields is not None and (not fields or len(set(fields)) != len(fields)):
        raise ProgipError(f"fault_model '{owner}': fields must be distinct and at least one")
    if bits is None:
        return
    if not bits or len(set(bits)) != len(bits):
        raise ProgipError(f"fault_model '{owner}': bits must be distinct and at least one")
    if any(not 0 <= bit < BITS for bit in bits):
        raise ProgipError(f"fault_model '{owner}': bits must lie in 0..31, got {list(bits)}")


def chosen_bits(
    owner: str, bits: list[int] | None, fields: list[str] | None, number_format: NumberFormat
) -> np.ndarray:
    """The bits of a code that can be hit, int8, in the order given.

    Args:
        bits, fields: as in ``check_bits``; both None: all bits of the code.

    Raises:
        ProgipError: a bit or a field that the format does not have.
    """
    which = f"of number_format '{number_format.name}'"
    if fields is not None:
        known = {part.name: part for part in number_format.fields}
        absent = [name for name in fields if name not in known]
        if absent:
            raise ProgipError(
                f"fault_model '{owner}': there is no field {absent[0]} {which}; its fields are "
                + ", ".join(known)
            )
        found = [range(known[name].low, known[name].high + 1) for name in fields]
        return np.concatenate([np.array(bits, dtype=np.int8) for bits in found])
    every = np.arange(number_format.bits, dtype=np.int8)
    if bits is None:
        return every
    if max(bits) >= number_format.bits:
        raise ProgipError(
            f"fault_model '{owner}': bits must lie in 0..{number_format.bits - 1} {which}, got "
            f"{list(bits)}"
        )
    return np.array(bits, dtype=np.int8)


def check_count(owner: str, key: str, count: int, number_format: NumberFormat) -> None:
    """Raise ProgipError unless a code of the format has so many bits."""
    if count > number_format.bits:
        raise ProgipError(
            f"fault_model '{owner}': {key}={count} bits, and a code of number_format "
            f"'{number_format.name}' has {number_format.bits}"
        )

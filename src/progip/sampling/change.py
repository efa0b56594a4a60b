"""How large a change a bit flip makes, told from the fault-free value before anything is executed.

A flip of an exponent bit that is clear multiplies a float32 by up to 2^128; of one that is set, it
all but erases the value. Which of the two, and from what size, is the value's exponent. So bit and
exponent together tell far better than the bit alone whether a fault can matter.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: exponents below and above that of a site's large values that are told apart
BELOW, ABOVE = 24, 7
#: of a value: 0 for zero and subnormal ones, 1 .. for its exponent, clipped
CODES = BELOW + ABOVE + 2
#: lower ends of the classes of change, as log2 of its size in parts of the site's large values
EDGES = (-3, -1, 0, 1, 3, 5, 7, 9, 20, 40, 80)
CLASSES = len(EDGES) + 2
NOT_FINITE = CLASSES - 1
#: share of a site's values that have a larger exponent than its scale
LARGE = 0.02

_BIAS, _MANTISSA, _SIGN = 127, 23, 31


def scale_of(exponents: NDArray[np.uint8]) -> int:
    """The biased exponent of a site's large values: a share LARGE of the values is larger."""
    seen = np.cumsum(np.bincount(exponents.ravel(), minlength=256)[::-1])[::-1]
    larger = np.append(seen[1:], 0)
    return int(np.argmax(larger <= LARGE * exponents.size))


def codes_of(exponents: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Codes 0..CODES-1 of values by their biased exponents, any shape; scale: of their site."""
    every = np.arange(256)
    codes = np.clip(every - scale, -BELOW, ABOVE) + BELOW + 1
    return np.where(every == 0, 0, codes).astype(np.uint8)[exponents]


def change_class(bit: ArrayLike, code: ArrayLike, scale: ArrayLike) -> NDArray[np.int64]:
    """Class 0..CLASSES-1 of the change that flipping a bit makes to a value of a code.

    The last class: the value becomes infinite or NaN. Sizes are right to a factor of 2, which their
    classes need not be exact for: any grouping of faults makes valid strata.

    Args:
        bit: 0..31, or -1 where nothing is flipped.
        code: of the value.
        scale: of the value's site; all three broadcast.
    """
    b, c, s = np.broadcast_arrays(*(np.asarray(x, dtype=np.int64) for x in (bit, code, scale)))
    field = np.where(c == 0, 0, np.clip(s + c - 1 - BELOW, 1, 254))
    flipped = field ^ np.where((b >= _MANTISSA) & (b < _SIGN), 1 << np.clip(b - _MANTISSA, 0, 7), 0)
    size = np.maximum(field, flipped)  # of an exponent bit: the larger of both values
    size = np.where(b < _MANTISSA, np.maximum(field, 1) - _MANTISSA + b, size)
    size = np.where(b == _SIGN, field + 1, size)
    classes = np.where(flipped == 255, NOT_FINITE, np.digitize(size - s, EDGES))
    return np.where((b < 0) | ((b == _SIGN) & (c == 0)), 0, classes)


def class_names() -> list[str]:
    """Of the classes, in order: ``change<2^-3``, ``change=2^-3``, ... ``change=not finite``."""
    return [f"change<2^{EDGES[0]}", *(f"change=2^{e}" for e in EDGES), "change=not finite"]

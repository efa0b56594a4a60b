"""Lists of single weight faults, as other injectors write them: read, checked, and written.

The columns are those of cad-polito-it's fault lists: Injection, Layer, TensorIndex, Bit,
n_injections, masked, non_critical, critical; the last four count images, and may be left out.
"""

import ast
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from progip.errors import ProgipError

NEEDED = ("Layer", "TensorIndex", "Bit")
COUNTS = ("n_injections", "masked", "non_critical", "critical")


@dataclass(frozen=True)
class FaultList:
    """Single faulty bits of parameters, one a line.

    Attributes:
        path: of the file.
        sha256: of the file.
        layer: (n,) names of modules.
        index: (n,) position in the parameter, a tuple of integers.
        bit: (n,) 0 is the least significant.
        counts: (n,) columns of ``COUNTS`` that the file has.
    """

    path: Path
    sha256: str
    layer: np.ndarray
    index: list[tuple[int, ...]]
    bit: np.ndarray
    counts: pd.DataFrame

    def check_bits(self, bits: int, what: str) -> None:
        """Raise ProgipError for a bit that a code of so many bits does not have."""
        wrong = np.flatnonzero((self.bit < 0) | (self.bit >= bits))
        if len(wrong):
            line = int(wrong[0])
            raise ProgipError(
                f"{self.path}: line {line + 2}: Bit is {self.bit[line]}; codes of {what} have bits "
                f"0 to {bits - 1}"
            )

    def check_places(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ProgipError for a layer or an index that is not there.

        Args:
            shapes: of the parameter, by layer.
        """
        for line, (layer, index) in enumerate(zip(self.layer, self.index, strict=True)):
            shape = shapes.get(layer)
            if shape is None:
                some = ", ".join(list(shapes)[:8])
                raise ProgipError(
                    f"{self.path}: line {line + 2}: the network has no such parameter in a layer "
                    f"'{layer}'; its layers are {some}, ..."
                )
            if len(index) != len(shape) or any(
                not 0 <= i < n for i, n in zip(index, shape, strict=True)
            ):
                raise ProgipError(
                    f"{self.path}: line {line + 2}: TensorIndex {index} lies outside {shape}, the "
                    f"shape of '{layer}'"
                )

    def flat(self, shapes: Mapping[str, tuple[int, ...]]) -> np.ndarray:
        """(n,) int64: the positions as flat indices, last dimension fastest."""
        found = [
            int(np.ravel_multi_index(index, shapes[layer]))
            for layer, index in zip(self.layer, self.index, strict=True)
        ]
        return np.array(found, dtype=np.int64)


def read_list(path: Path) -> FaultList:
    """Read a list of faults.

    Raises:
        ProgipError: the file, a column or a line is not as it has to be; it is named.
    """
    try:
        content = path.read_bytes()
        frame = pd.read_csv(path)
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ProgipError(f"{path}: cannot be read as a list of faults ({error})") from error
    absent = [name for name in NEEDED if name not in frame]
    if absent:
        raise ProgipError(
            f"{path}: there is no column {absent[0]}; a list of faults has Layer, TensorIndex (as "
            'in "(3, 0, 2, 1)") and Bit'
        )
    if frame.empty:
        raise ProgipError(f"{path}: it lists no fault")
    bits = pd.to_numeric(frame["Bit"], errors="coerce")
    wrong = np.flatnonzero(bits.isna() | (bits % 1 != 0))
    if len(wrong):
        raise ProgipError(
            f"{path}: line {wrong[0] + 2}: Bit is {frame['Bit'].iloc[wrong[0]]!r}, no whole number"
        )
    index = [_index(path, line, text) for line, text in enumerate(frame["TensorIndex"])]
    held = [name for name in COUNTS if name in frame]
    return FaultList(
        path,
        hashlib.sha256(content).hexdigest(),
        np.array([re.sub(r"^module\.", "", str(name)) for name in frame["Layer"]], dtype=object),
        index,
        bits.to_numpy().astype(np.int64),
        frame[held],
    )


def _index(path: Path, line: int, text: object) -> tuple[int, ...]:
    try:
        found = ast.literal_eval(str(text))
    except (ValueError, SyntaxError):
        found = None
    if isinstance(found, int):
        found = (found,)
    if not isinstance(found, tuple) or not all(isinstance(i, int) for i in found):
        raise ProgipError(
            f'{path}: line {line + 2}: TensorIndex is {text!r}; give integers, as in "(3, 0, 2, 1)"'
        )
    return found

"""Numbers as CSV: fractions of 1 and counts, unrounded; and files written whole."""

import os
from pathlib import Path

import pandas as pd

from progip.report import layout


def to_csv(data: pd.DataFrame) -> str:
    """The numbers of a section or figure; the sums of weights only where there are weights."""
    sums = [name for name in data if str(name).endswith(("_w", "_w2", "_effective_n"))]
    if "done_w2" in data and not layout.weighted(data):
        data = data.drop(columns=sums)
    return data.convert_dtypes().to_csv(index=False)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(content)
    os.replace(draft, path)

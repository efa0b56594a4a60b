"""Groups of classes and their supergroups: which classes are safety-critical, and alike."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from progip.errors import ProgipError
from progip.records import NO_CLASS

COLUMNS = ("group", "supergroup")


@dataclass(frozen=True)
class Groups:
    """A partition of the classes.

    A CSV file has one row a class, with the columns ``group`` and ``supergroup``, and either
    ``class_index`` (0 to classes - 1, in any order) or ``class``: names in the order of labels.

    Attributes:
        path: of the file, for messages.
        digest: sha256 of what it says.
        group: (classes,) the group of each class, as a number.
        critical: (classes,) whether its supergroup is the critical one.
    """

    path: str
    digest: str
    group: np.ndarray
    critical: np.ndarray

    @classmethod
    def read(cls, path: str, critical: str) -> "Groups":
        """Read a file.

        Raises:
            ProgipError: naming the file, and the class that it names twice or leaves out, a group
                in two supergroups, or the supergroup that it does not have.
        """
        try:
            table = pd.read_csv(Path(path).expanduser(), dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise ProgipError(f"groups={path}: cannot be read as a CSV file ({error})") from error
        named = [n for n in ("class_index", "class") if n in table]
        missing = [n for n in COLUMNS if n not in table] + ([] if named else ["class_index"])
        if missing or not len(table):
            raise ProgipError(
                f"groups={path}: lacks {', '.join(missing) or 'every row'}; its columns are "
                f"{', '.join(table.columns)}. Give class_index (or class), group and supergroup"
            )
        twice = table[named[0]][table[named[0]].duplicated()]
        if len(twice):
            raise ProgipError(f"groups={path}: names class {twice.iloc[0]} twice")
        if named[0] == "class_index":
            table = _by_index(path, table)
        of_group = table.groupby("group")["supergroup"].nunique()
        if (of_group > 1).any():
            raise ProgipError(
                f"groups={path}: group '{of_group.idxmax()}' is in two supergroups; it needs one"
            )
        inside = (table["supergroup"] == critical).to_numpy()
        if not inside.any():
            names = ", ".join(sorted(set(table["supergroup"])))
            raise ProgipError(f"groups={path}: no supergroup '{critical}'; there are {names}")
        said = table[list(COLUMNS)].to_csv(index=False)
        digest = hashlib.sha256(said.encode()).hexdigest()
        return cls(path, digest, pd.factorize(table["group"])[0], inside)

    def check(self, classes: int) -> None:
        """Raise ProgipError unless these are the groups of so many classes."""
        if len(self.group) != classes:
            raise ProgipError(
                f"groups={self.path}: has {len(self.group)} classes, the dataset {classes}; give "
                "the file of this dataset"
            )

    def critical_change(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """(n,) whether it is critical to take class ``before`` for ``after``; NO_CLASS is one."""
        other = (after == NO_CLASS) | (self.group[after] != self.group[before])
        found: np.ndarray = (before != NO_CLASS) & self.critical[before] & other
        return found


def _by_index(path: str, table: pd.DataFrame) -> pd.DataFrame:
    index = pd.to_numeric(table["class_index"], errors="coerce")
    bad = table["class_index"][~(index >= 0) | (index % 1 != 0)]
    if len(bad):
        raise ProgipError(f"groups={path}: class_index '{bad.iloc[0]}' is no class number")
    gaps = sorted(set(range(len(table))) - set(index.astype(int)))
    if gaps:
        raise ProgipError(
            f"groups={path}: {len(table)} rows, but none of class {gaps[0]}; every class of 0 to "
            f"{int(index.max())} must be named once"
        )
    return table.iloc[np.argsort(index.to_numpy())]

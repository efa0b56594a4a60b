"""What a condition is: it chooses images by what the fault-free network makes of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.described import Described
from progip.errors import ProgipError
from progip.records import POPULATIONS

#: columns of golden rows
Golden = Mapping[str, np.ndarray]


@dataclass(kw_only=True)
class Condition(Described, ABC):
    """One choice; the dataclass fields of a subclass are the options of its YAML file.

    Runs of other images are not drawn at all, so the rates of a cell are those of such images.

    Attributes:
        name: what result rows call it; the name of its YAML file.

    Class attributes:
        populations: those it can be asked about.
        needs: columns of golden rows, beside ``label``.
    """

    name: str

    populations: ClassVar[tuple[str, ...]] = POPULATIONS
    needs: ClassVar[tuple[str, ...]] = ()

    def check(self, classes: int) -> None:
        """Refuse options that do not fit so many classes. Raises ProgipError."""

    @abstractmethod
    def holds(self, golden: Golden) -> np.ndarray:
        """(images,) whether each image is chosen, from its own golden row alone."""

    def chosen(self, golden: Golden) -> np.ndarray:
        """Positions of the chosen images, ascending.

        Raises:
            ProgipError: there is none.
        """
        found: np.ndarray = np.flatnonzero(self.holds(golden))
        if not len(found):
            count = len(golden["label"])
            raise ProgipError(
                f"condition '{self.name}': none of the {count} evaluation images is such; choose "
                "another condition, or more images"
            )
        return found

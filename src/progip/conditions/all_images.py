"""Every evaluation image."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from progip.conditions.base import Condition, Golden


@dataclass(kw_only=True)
class AllImages(Condition):
    """No choice: what every campaign was of before there were conditions."""

    sentence: ClassVar[str] = ""

    def holds(self, golden: Golden) -> np.ndarray:
        return np.ones(len(golden["label"]), dtype=bool)


ALL_IMAGES = AllImages(name="all")

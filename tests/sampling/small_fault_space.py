"""A population of a few sites whose fault-free values are known, for tests of plans."""

import numpy as np

from progip.fault_models.base import Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.sampling.base import FaultSpace
from progip.sampling.change import CODES, codes_of, scale_of

SITES = [
    Site("conv1", 0, "Conv2d", (4, 8, 8), 256, 1000),
    Site("conv1", 1, "Conv2d", (8, 4, 4), 128, 2000),
    Site("fc", 0, "Linear", (10,), 10, 80),
]
CORRECT = np.arange(50) % 5 > 0
DISTANCE = np.linspace(3, 0, 50)
#: exponents of the fault-free values, (sites, images, neurons); 0: the value is 0
EXPONENTS = [
    np.random.default_rng(n).choice([0, 90, 118, 126, 127, 128, 130], (50, site.neurons))
    for n, site in enumerate(SITES)
]
BITS = ["bit", "layer", "correct"]


class Values:
    """`progip.engine.clean_values` of EXPONENTS."""

    def __init__(self) -> None:
        self.scale = np.array([scale_of(e.astype(np.uint8)) for e in EXPONENTS])
        self.codes = [
            codes_of(e.astype(np.uint8), int(s)) for e, s in zip(EXPONENTS, self.scale, strict=True)
        ]
        self.counts = np.stack(
            [np.stack([(c == code).sum(1) for code in range(CODES)]) for c in self.codes]
        )

    def neurons(self, image, site, code, rank) -> np.ndarray:
        asked = zip(image, site, code, rank, strict=True)
        return np.array([np.flatnonzero(self.codes[s][i] == c)[r] for i, s, c, r in asked])


VALUES = Values()


def population(weighting: str = "layer", bits: tuple[int, ...] = (3, 30, 31)) -> FaultSpace:
    model = SingleBitFlip(name="f", weighting=weighting, bits=list(bits))
    return FaultSpace(model, SITES, CORRECT, DISTANCE, lambda: VALUES)

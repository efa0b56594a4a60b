"""How far the logits lie from the mean logits of the class they give."""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.class_means import of_classes
from progip.probes.base import Observation, Probe
from progip.records import Column


class ClassDistance(Probe):
    """|z - mu_c| of the logits z and their class c, in units of the largest of training images.

    mu_c is the mean of the logits of the correctly classified ID training images of the class; of
    these images none is farther from it than 1. NaN where a logit is NaN. Computed in float64.
    """

    name: ClassVar[str] = "class_distance"
    produces: ClassVar[tuple[Column, ...]] = (Column("class_distance", pa.float64(), paired=True),)
    learns: ClassVar[bool] = True

    def __init__(self) -> None:
        self._state: dict[str, Tensor] = {}

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Means and largest distances. Raises ProgipError for a class without two of them."""
        classes = of_classes(f"probe '{self.name}'", network, batches)
        for klass, (_, distances) in enumerate(classes):
            if not len(distances) or distances[-1] == 0:
                raise ProgipError(
                    f"probe '{self.name}': class {klass} has {len(distances)} correctly classified "
                    "training images, too few or too alike to tell how far they lie apart; give "
                    "more training images, or leave the probe out"
                )
        means = torch.from_numpy(np.stack([mean for mean, _ in classes]))
        largest = torch.tensor([distances[-1] for _, distances in classes], dtype=torch.float64)
        self._state = {"means": means, "largest": largest}

    def state(self) -> dict[str, Tensor]:
        return self._state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._state = dict(state)

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        logits = seen.logits[:count].double().cpu()
        klass = logits.argmax(1)
        distance = (logits - self._state["means"][klass]).square().sum(1).sqrt()
        return {"class_distance": (distance / self._state["largest"][klass]).numpy()}

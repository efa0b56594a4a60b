"""Distances of logits to the mean of their class, over correctly classified training images."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from progip.errors import ProgipError


class OfClass(NamedTuple):
    """The correctly classified training images of one class.

    Attributes:
        mean: (classes,) of their logits, float64; zero where there are none.
        distances: (n,) Euclidean distances of their logits to it, ascending.
    """

    mean: np.ndarray
    distances: np.ndarray


def of_classes(
    owner: str, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> list[OfClass]:
    """Run the network over (images, labels) batches of ID training data.

    Raises:
        ProgipError: a logit is not finite.
    """
    found, labels = [], []
    with torch.no_grad():
        for images, targets in batches:
            found.append(network(images).double().cpu().numpy())
            labels.append(targets.cpu().numpy())
    logits, label = np.concatenate(found), np.concatenate(labels)
    if not np.isfinite(logits).all():
        raise ProgipError(f"{owner}: a training logit is not finite")
    right = logits.argmax(1) == label
    classes = []
    for klass in range(logits.shape[1]):
        own = logits[right & (label == klass)]
        mean = own.mean(0) if len(own) else np.zeros(logits.shape[1])
        classes.append(OfClass(mean, np.sort(np.linalg.norm(own - mean, axis=1))))
    return classes

"""Protections that learn from faults: what they are, and what they are trained on."""

import importlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from progip.datasets.base import Dataset
from progip.datasets.none import NoImages
from progip.errors import ProgipError
from progip.protections.base import Evidence, Protection
from progip.storage.whole_files import Checkpoint

#: classes of training rows
CLEAN, OOD, FAULT = 0, 1, 2
LABELS = ("critical", "any")


@dataclass(kw_only=True)
class Supervised(Protection):
    """A protection that learns from a training campaign of its own (``campaign.training``).

    Its faults are single bit flips of outputs in the first forward pass of ID *training* images,
    and of the images of one OOD set that is not evaluated. Layers and bits that the cell's fault
    model can hit are never hit in training: both must be left over by ``fault_model.layers`` and
    ``fault_model.bits``.

    Attributes:
        images: ID training images; as many of the OOD set, where there is one.
        runs: of the training campaign; half of them on OOD images, where there are any.
        layers: regular expression of the layers that training faults may hit, out of those that the
            evaluation leaves; null: all these.
        bits: of a code that training faults may flip, likewise.
        ood: the options of the OOD set, a dataset; ``NoImages``: none.
        label_by: what a run is labelled as faulty by: ``critical``, it fails by the cell's outcome,
            else it counts as its image does; or ``any``.
        seed: of the training campaign, and of all that training draws.
    """

    images: int = 500
    runs: int = 20_000
    layers: str | None = None
    bits: list[int] | None = None
    ood: dict[str, Any] = field(default_factory=dict)
    label_by: str = "critical"
    seed: int = 0

    def __post_init__(self) -> None:
        self._must("label_by", self.label_by in LABELS, f"is not one of {', '.join(LABELS)}")
        self._must("images", self.images >= 2, "must be at least 2")
        self._must("runs", self.runs >= 2, "must be at least 2")
        self._must("seed", self.seed >= 0, "must not be negative")
        _ = self.ood_set  # refuses a wrong one

    def _must(self, key: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ProgipError(f"protection '{self.name}': {key}={getattr(self, key)} {rule}")

    @cached_property
    def ood_set(self) -> Dataset | None:
        """The OOD set to learn from; None where there is none.

        Raises:
            ProgipError: ``ood`` describes no dataset.
        """
        options = dict(self.ood)
        target = str(options.pop("_target_", ""))
        if not target:
            return None
        module, _, name = target.rpartition(".")
        try:
            made = getattr(importlib.import_module(module), name)(**options)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise ProgipError(f"protection '{self.name}': ood: {target}: {error}") from error
        if not isinstance(made, Dataset):
            raise ProgipError(f"protection '{self.name}': ood: {target} is not a Dataset")
        return None if isinstance(made, NoImages) else made

    @abstractmethod
    def learn(
        self, runs: Evidence, labels: np.ndarray, hit: np.ndarray, checkpoint: Checkpoint
    ) -> None:
        """Learn to tell faults.

        Args:
            runs: the columns ``watches`` of n executions.
            labels: (n,) ``CLEAN``, ``OOD`` or ``FAULT``.
            hit: (n,) bool, executions with a fault. With ``label_by: critical`` those that a fault
                leaves right are labelled as their image is, whatever it did to their values.
            checkpoint: what an interrupted training on the same rows left, and where this one
                leaves what it has. With it, what is learnt is that of a training that ran through.
        """

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What ``learn`` learnt; empty before."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""

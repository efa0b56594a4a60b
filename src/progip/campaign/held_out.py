"""What the evaluation of a cell leaves for a supervised protection to learn from."""

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.datasets.base import Images
from progip.datasets.pairing import matched, population_split
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.protections.supervised import Supervised

log = logging.getLogger(__name__)

PASS = "first_forward"


@dataclass(frozen=True)
class HeldOut:
    """Layers, bits and images of which the evaluation of a cell meets none.

    Args:
        settings: of the cell.
    """

    settings: CellSettings
    subject: Subject
    protection: Supervised

    @cached_property
    def sites(self) -> list[Site]:
        """Whose outputs may be hit: of the kinds that are evaluated, in no layer that is.

        Raises:
            ProgipError: none is left.
        """
        model = self._model
        every = self.subject.survey.sites[PASS]
        wanted = replace(model, layers=self.protection.layers).select(every)
        left = [s for s in wanted if s.layer not in self.evaluated_layers and not s.doubt]
        self._left(left, "layers", "layer", sorted(self.evaluated_layers))
        return left

    @cached_property
    def evaluated_layers(self) -> frozenset[str]:
        """All that the cell's fault model hits in any pass."""
        survey, found = self.subject.survey, set()
        for fault_pass in self.settings.subject.ood_method.passes:
            try:
                found |= {site.layer for site in self._model.select(survey.sites[fault_pass])}
            except ProgipError:  # there is none in this pass
                if fault_pass == self.settings.fault_pass:
                    raise
        return frozenset(found)

    @cached_property
    def bits(self) -> list[int]:
        """That may be flipped.

        Raises:
            ProgipError: none is left.
        """
        hit = {int(bit) for bit in self._model.atoms(self.subject.survey.sites[PASS]).bit}
        every = range(self.subject.tested.settings.number_format.bits)
        wanted = every if self.protection.bits is None else self.protection.bits
        left = [bit for bit in wanted if bit not in hit and bit in every]
        self._left(left, "bits", "bit", sorted(hit))
        return left

    @cached_property
    def _model(self) -> SingleBitFlip:
        model = self.settings.fault_model
        if type(model) is not SingleBitFlip:
            raise ProgipError(
                f"protection '{self.protection.name}' learns from single bit flips of other layers "
                f"and bits, and faults of fault_model '{model.name}' cannot be told apart from "
                "these; use fault_model=single_bit_flip"
            )
        return model

    def _left(self, left: list[Any], option: str, one: str, hit: list[Any]) -> None:
        if not left:
            raise ProgipError(
                f"protection '{self.protection.name}' must learn from {option} that are not "
                f"evaluated, and the evaluation leaves no {one} (it hits "
                f"{', '.join(map(str, hit))}); restrict fault_model.{option}"
                + (f", or widen protection.{option}" if getattr(self.protection, option) else "")
            )

    @cached_property
    def evaluated_images(self) -> frozenset[bytes]:
        """Digests of all images that thresholds are set by or that are evaluated."""
        s = self.settings.subject
        return frozenset(
            digest
            for population, split in self.subject.tested.data
            for digest in _digests(population_split(population, split, s.dataset, s.ood_dataset))
        )

    @cached_property
    def images(self) -> dict[str, Images]:
        """The images by population: of the ID training set, and of the OOD set to learn from.

        Raises:
            ProgipError: the OOD set is the evaluated one, or no image is left.
        """
        s, ood = self.settings.subject, self.protection.ood_set
        found = {"id": s.dataset.split("train")}
        if ood is not None and "ood" in s.ood_method.populations:
            mine, evaluated = (type(ood), ood.name), (type(s.ood_dataset), s.ood_dataset.name)
            if mine == evaluated or ood.name in (s.dataset.name, s.ood_dataset.name):
                raise ProgipError(
                    f"protection '{self.protection.name}' must learn from another OOD set than the "
                    f"evaluated '{s.ood_dataset.name}'; choose one with dataset@protection.ood=NAME"
                )
            channels, height, width = s.dataset.shape
            size = (height, width)
            found["ood"] = matched(ood.test_images(), channels, size, ood.interpolation)
        return {name: self._unseen(name, images) for name, images in found.items()}

    def _unseen(self, population: str, images: Images) -> Images:
        """Some images of a population, none of which is evaluated."""
        digests = _digests(images)
        fine = np.array([digest not in self.evaluated_images for digest in digests], dtype=bool)
        if not fine.all():
            log.warning(
                "protection %s: %d of %d %s images to learn from are evaluated, too, and left out",
                self.protection.name, (~fine).sum(), len(fine), population,
            )  # fmt: skip
        order = np.random.default_rng(self.protection.seed).permutation(np.flatnonzero(fine))
        if len(order) < 2:
            raise ProgipError(
                f"protection '{self.protection.name}': of its {population} images all are "
                "evaluated, too; it must learn from others"
            )
        return images.take(np.sort(order[: self.protection.images]))


def _digests(images: Images) -> list[bytes]:
    """Of the pixels of each image."""
    return [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images.pixels]

"""The network under test: loaded, placed on its device with its data, and corrected or not."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from progip.campaign.batch_size import fitting_batch
from progip.campaign.correction import corrected_network
from progip.campaign.golden import TABLES, CleanData
from progip.campaign.settings import SubjectSettings
from progip.campaign.settings_identity import of_subject
from progip.datasets.base import Images
from progip.datasets.pairing import population_split
from progip.engine.corrected import CorrectedPipeline
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.sites import Site, hookable
from progip.fault_models.base import FaultModel
from progip.fault_models.layers import kinds_of
from progip.fault_models.parameters import parameter_sites
from progip.models.checking import check_repeatable
from progip.models.loading import load_network, weights_fingerprint
from progip.ood_methods.base import OODMethod
from progip.storage.content_cache import code_digest


class NetworkUnderTest:
    """A network with the images it is tested on; nothing of it depends on golden results.

    Attributes:
        settings: what it was made from.
        device: that it is on.
        method: the OOD method around it.
        plain: the model itself, in evaluation mode with frozen parameters.
        data: (normalised images on the device, labels) by population and split.
        images: the evaluation images by population.
        labels: theirs.
        batch_size: rows of every batch.
        identity: what results depend on, for manifests.

    Raises:
        ProgipError: data or weights are not there or do not fit, or the network is not repeatable.
    """

    def __init__(self, settings: SubjectSettings) -> None:
        self.settings = settings
        self.device = settings.torch_device()
        self.method: OODMethod = settings.ood_method
        dataset = settings.dataset
        splits = {
            name: population_split(*name, dataset, settings.ood_dataset)
            for name in TABLES
            if name[0] in self.method.populations
            # without verdicts there is no threshold to set, so every test image may be evaluated
            and (name[1] == "evaluation" or self.method.verdicts or dataset.calibration)
        }
        self.data: CleanData = {
            name: (self.placed(images), images.labels) for name, images in splits.items()
        }
        self._train = dataset.split("train")
        loaded = load_network(
            settings.model,
            self.device,
            image_shape=splits["id", "evaluation"].pixels.shape[1:],
            channels_last=settings.channels_last,
        )
        weights = weights_fingerprint(loaded)  # a number format may round them
        self.plain = settings.number_format.prepare(
            loaded, lambda: (images for images, _ in self.training_batches())
        )
        self.images = {p: self.data[p, "evaluation"][0] for p in self.method.populations}
        self.labels = {p: self.data[p, "evaluation"][1] for p in self.method.populations}
        rows = settings.rows
        if settings.batch_size is None:  # of what fills one: a traced batch is of images
            rows = min(rows, max(32, 2 ** (min(map(len, self.images.values())).bit_length() - 1)))
        self.batch_size = fitting_batch(self.plain, self.images["id"][:2], rows, settings.memory)
        owner = f"model '{settings.model.name}'"
        check_repeatable(self.plain, owner, self.images["id"][: self.batch_size])
        self.identity: dict[str, Any] = {
            **of_subject(settings),
            "weights_sha256": weights,
            "data": {
                "train": self._train.fingerprint(),
                **{f"{p}_{s}": images.fingerprint() for (p, s), images in splits.items()},
            },
        }

    @cached_property
    def network(self) -> nn.Module:
        """What is executed: the model, with the corrections of a correcting protection in it."""
        correction = self.settings.correction
        if correction is None:
            return self.plain
        names = ("model", "number_format", "dataset", "weights_sha256", "correction")
        content = {name: self.identity[name] for name in names}
        return corrected_network(
            self.plain,
            correction,
            self.training_batches,
            self.images["id"][:1],
            {**content, "train": self.identity["data"]["train"], "code": self.code},
        )

    @property
    def layers(self) -> list[nn.Module]:
        """Every module of the model, without what a protection puts into it."""
        return list(self.plain.modules())

    def modules(self, fault_model: FaultModel) -> list[Site]:
        """What may be hit, as sites of unknown size: known before golden work."""
        if fault_model.scope == "round":
            # a protection may have parameters of its own
            sites = parameter_sites(self.network, {})
            return [replace(site, shape=(), neurons=0) for site in sites]
        return [
            Site(name, 0, kinds_of(module)[0], (), 0, 0, kinds_of(module))
            for name, module in hookable(self.plain)
        ]

    @cached_property
    def code(self) -> str:
        """Digest of the code that golden results depend on."""
        settings = self.settings
        parts = (
            settings.model,
            settings.number_format,
            settings.dataset,
            settings.ood_dataset,
            self.method,
        )
        return code_digest([*parts, settings.correction, *settings.probes], self.layers)

    def pipeline(self, network: nn.Module, method: OODMethod, ranges: RangeTable) -> Pipeline:
        """The detector to execute, with its range checks."""
        if self.settings.correction is None:
            return Pipeline(network, method, ranges, self.settings.probes)
        return CorrectedPipeline(network, method, ranges, self.plain, self.settings.probes)

    def training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of the ID training data, images normalised, on the device."""
        size = self.settings.rows
        for start in range(0, len(self._train), size):
            part = self._train.take(np.arange(start, min(start + size, len(self._train))))
            yield self.placed(part), torch.from_numpy(part.labels)

    def placed(self, images: Images) -> Tensor:
        """Normalised images on the device, in the memory format of the network."""
        dataset = self.settings.dataset
        tensor = images.tensor(dataset.mean, dataset.std).to(self.device)
        if self.settings.channels_last:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

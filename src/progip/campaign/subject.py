"""The subject of a campaign, made ready: network, detector, data and golden results together."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip import records
from progip.campaign.batch_size import fitting_batch
from progip.campaign.correction import corrected_network
from progip.campaign.golden import TABLES, Golden, golden_work
from progip.campaign.judge import golden_evidence
from progip.campaign.settings import SubjectSettings, identity
from progip.datasets.base import Images, Split
from progip.datasets.pairing import population_split
from progip.engine.clean_values import CleanValues
from progip.engine.corrected import CorrectedPipeline
from progip.engine.incremental import NotTraceable, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import LeftOut, Survey, hookable, kinds_of, survey
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site
from progip.models.checking import check_repeatable
from progip.models.loading import load_network, weights_fingerprint
from progip.ood_methods.base import OODMethod
from progip.protections.base import Evidence, Protection
from progip.protections.correcting import Correcting, corrected_calls
from progip.protections.placement import nothing_to_check
from progip.statistics.roc import auroc, fpr_at_tpr, threshold_at_tpr
from progip.storage.content_cache import code_digest

log = logging.getLogger(__name__)

TRUE_POSITIVE_RATE = 0.95


class Subject:
    """What a cell attacks. Golden work is done, or loaded, when it is first asked for.

    Attributes:
        method: with ``network`` the detector.
        sites: of every pass.
        images: evaluation images by population, normalised, on the device.
        identity: what results depend on, for manifests.
    """

    def __init__(self, settings: SubjectSettings) -> None:
        self._settings = settings
        self._told: set[tuple[str, LeftOut]] = set()
        self._clean_values: tuple[tuple, CleanValues] | None = None
        self.device = settings.torch_device()
        dataset = settings.dataset
        self.method = settings.ood_method
        splits = {
            name: population_split(*name, dataset, settings.ood_dataset)
            for name in TABLES
            if name[0] in self.method.populations
        }
        self._data = {
            name: (self._placed(images), images.labels) for name, images in splits.items()
        }
        self._train = dataset.split("train")
        shape = splits["id", "evaluation"].pixels.shape[1:]
        self._plain = load_network(
            settings.model, self.device, image_shape=shape, channels_last=settings.channels_last
        )
        self.batch_size = fitting_batch(
            self._plain,
            self._data["id", "evaluation"][0][:2],
            settings.batch_size,
            settings.golden_memory,
        )
        self.images = {p: self._data[p, "evaluation"][0] for p in self.method.populations}
        owner = f"model '{settings.model.name}'"
        check_repeatable(self._plain, owner, self.images["id"][: self.batch_size])
        self.identity: dict[str, Any] = {
            "model": identity(settings.model),
            "dataset": identity(dataset),
            "ood_dataset": identity(settings.ood_dataset),
            "ood_method": identity(self.method),
            "weights_sha256": weights_fingerprint(self._plain),
            "data": {
                "train": self._train.fingerprint(),
                **{f"{p}_{s}": images.fingerprint() for (p, s), images in splits.items()},
            },
        }

        if settings.correction is not None:
            self.identity["correction"] = identity(settings.correction)

    @cached_property
    def network(self) -> nn.Module:
        """What is executed: the model, with the corrections of a correcting protection in it."""
        correction = self._settings.correction
        if correction is None:
            return self._plain
        names = ("model", "dataset", "weights_sha256", "correction")
        content = {name: self.identity[name] for name in names}
        return corrected_network(
            self._plain,
            correction,
            lambda: (images for images, _ in self._training_batches()),
            self._data["id", "evaluation"][0][:1],
            {**content, "train": self.identity["data"]["train"], "code": self._code},
        )

    @property
    def layers(self) -> list[nn.Module]:
        """Every module of the model, without what a protection puts into it."""
        return list(self._plain.modules())

    @cached_property
    def _code(self) -> str:
        settings = self._settings
        parts = (settings.model, settings.dataset, settings.ood_dataset, self.method)
        return code_digest([*parts, settings.correction], self.layers)

    @cached_property
    def golden(self) -> Golden:
        """Fault-free results; the method is fitted after this."""
        return golden_work(
            self.network,
            self.method,
            self._data,
            self._training_batches(),
            self.batch_size,
            {**self.identity, "code": self._code},
            self._pipeline,
        )

    @cached_property
    def pipeline(self) -> Pipeline:
        """The detector to execute, with its range checks."""
        return self._pipeline(self.network, self.method, self.golden.ranges)

    @cached_property
    def traced(self) -> Traced | NotTraceable:
        """The detector as one graph for the incremental executor, or why there is none."""
        batch = self.images["id"][: self.batch_size]
        try:
            return Traced(self.pipeline, batch)
        except NotTraceable as reason:
            return reason

    @cached_property
    def survey(self) -> Survey:
        """What a fault can hit in every pass, and what not."""
        _ = self.golden  # fits the method
        return survey(self.network, self.method, self.images["id"][:3])

    def chosen(self, fault_model: FaultModel, fault_pass: str) -> list[Site]:
        """The sites of a pass that a fault model selects.

        Raises:
            ProgipError: there is none, or in one of them images cannot be told apart.
        """
        found = self.survey.sites[fault_pass]
        left_out = self.survey.left_out[fault_pass]
        try:
            chosen = fault_model.select(found)
        except ProgipError as error:
            reasons = [f"layer '{layer.layer}' {layer.reason}" for layer in left_out[:1]]
            raise ProgipError("; ".join([str(error), *reasons])) from error
        doubtful = next((site for site in chosen if site.doubt), None)
        if doubtful is not None:
            raise ProgipError(
                f"layer '{doubtful.layer}' ({doubtful.kind}): its tensor in the {fault_pass} pass "
                f"{doubtful.doubt}, so a fault cannot be given to one image; leave it out with "
                "fault_model.layers=REGULAR_EXPRESSION"
            )
        for layer in left_out:
            text = f"{fault_pass} pass: no fault hits '{layer.layer}' ({layer.kind}): it"
            if (fault_pass, layer) not in self._told:  # once, not in every cell
                log.warning("%s %s", text, layer.reason)
                self._told.add((fault_pass, layer))
        return chosen

    def watched(self, protection: Protection) -> dict[str, int]:
        """At how many places the protection looks at, or corrects, values; for manifests.

        Raises:
            ProgipError: it watches the ranges of activations, and no activation is a module.
        """
        if isinstance(protection, Correcting):
            calls = corrected_calls(self.network)
            return {} if calls is None else {"corrected_calls": calls}
        if not any(name.startswith("range_") for name in protection.watches):
            return {}
        if not self.golden.ranges.sites:
            raise nothing_to_check(f"protection '{protection.name}'", self._plain)
        return {"range_checked_calls": len(self.golden.ranges.sites)}

    def clean_values(self, population: str, fault_pass: str, sites: list[Site]) -> CleanValues:
        """Of the evaluation images at these sites; those last asked for stay ready."""
        key = (population, fault_pass, tuple(site.key for site in sites))
        if self._clean_values is None or self._clean_values[0] != key:
            self._clean_values = None  # what is kept of another pass is freed first
            log.info("fault-free values of the %s images: %s pass", population, fault_pass)
            images = self.images[population]
            reference = ReferenceExecutor(self.pipeline, sites, fault_pass, images, self.batch_size)
            values = CleanValues(reference, self._settings.golden_memory // 4)
            self._clean_values = (key, values)
        return self._clean_values[1]

    @property
    def modules(self) -> list[Site]:
        """Every module that may be hit as a site of unknown size: known before golden work."""
        return [
            Site(name, 0, kinds_of(module)[0], (), 0, 0, kinds_of(module))
            for name, module in hookable(self._plain)
        ]

    def evaluation(self, population: str) -> pa.Table:
        """``records.GOLDEN`` of the evaluation images."""
        return self.golden.tables[population, "evaluation"]

    @cached_property
    def clean(self) -> Evidence:
        """Evidence of the calibration images of both populations, for thresholds."""
        tables = [self.golden.tables[p, "calibration"] for p in self.method.populations]
        return golden_evidence(pa.concat_tables(tables))

    @cached_property
    def ood_threshold(self) -> float:
        """95 % of the ID calibration images score above it; 0 where a method has no verdicts."""
        if not self.method.verdicts:
            return 0.0
        scores = self._scores("id", "calibration")
        if not np.isfinite(scores).all():
            raise ProgipError(
                f"ood_method '{self.method.name}': clean scores of '{self._settings.dataset.name}' "
                "are not finite; the weights, the normalisation or the method's options do not fit"
            )
        return threshold_at_tpr(scores, TRUE_POSITIVE_RATE)

    @cached_property
    def base_metrics(self) -> dict[str, Any]:
        """Of the detector without faults, over the evaluation images."""
        table = self.evaluation("id")
        correct = int((table["class"].to_numpy() == table["label"].to_numpy()).sum())
        accuracy = {"id_accuracy": {"correct": correct, "images": len(table)}}
        if not self.method.verdicts:
            return accuracy
        id_scores, ood_scores = (self._scores(p, "evaluation") for p in records.POPULATIONS)
        return {
            **accuracy,
            "auroc": auroc(id_scores, ood_scores),
            "fpr95": fpr_at_tpr(id_scores, ood_scores, TRUE_POSITIVE_RATE),
            "id_images": len(id_scores),
            "ood_images": len(ood_scores),
            "id_true_positives": int((id_scores > self.ood_threshold).sum()),
            "ood_false_positives": int((ood_scores > self.ood_threshold).sum()),
        }

    def _pipeline(self, network: nn.Module, method: OODMethod, ranges: RangeTable) -> Pipeline:
        if self._settings.correction is None:
            return Pipeline(network, method, ranges)
        return CorrectedPipeline(network, method, ranges, self._plain)

    def _placed(self, images: Images) -> Tensor:
        """Normalised images on the device, in the memory format of the network."""
        dataset = self._settings.dataset
        tensor = images.tensor(dataset.mean, dataset.std).to(self.device)
        if self._settings.channels_last:
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        return tensor

    def _scores(self, population: str, split: Split) -> np.ndarray:
        scores: np.ndarray = self.golden.tables[population, split]["score"].to_numpy()
        return scores

    def _training_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self._settings.batch_size
        for start in range(0, len(self._train), size):
            part = self._train.take(np.arange(start, min(start + size, len(self._train))))
            yield self._placed(part), torch.from_numpy(part.labels)


_ready: dict[str, Subject] = {}


def prepare(settings: SubjectSettings) -> Subject:
    """The subject of these settings; the last two stay ready for the next cells of a sweep."""
    kinds = [str(type(getattr(settings, field.name))) for field in fields(settings)]
    what = [asdict(settings), kinds, torch.get_num_threads()]
    key = json.dumps(what, sort_keys=True, default=str)
    if key not in _ready:
        if len(_ready) == 2:
            _ready.pop(next(iter(_ready)))
        _ready[key] = Subject(settings)
    return _ready[key]

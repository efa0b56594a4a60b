"""The subject of a campaign: the network under test, its golden results and its thresholds."""

import json
import logging
from dataclasses import asdict, fields
from functools import cached_property

import torch

from progip.batch_axis import IMAGES_FIRST
from progip.campaign.golden import Golden, golden_work
from progip.campaign.memory import give_back_memory
from progip.campaign.network_under_test import NetworkUnderTest
from progip.campaign.settings import SubjectSettings
from progip.campaign.steps import step
from progip.campaign.thresholds import Thresholds
from progip.engine.clean_values import CleanValues
from progip.engine.incremental import NotTraceable, Traced, loaded_or_traced
from progip.engine.pipeline import Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import LeftOut, Survey, survey
from progip.engine.super_layers import super_layers
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site
from progip.fault_models.parameters import parameter_sites
from progip.models.calls import Call
from progip.protections.base import Protection
from progip.protections.correcting import Correcting, corrected_calls
from progip.protections.placement import nothing_to_check
from progip.storage.content_cache import cache_folder, content_key

log = logging.getLogger(__name__)


class Subject:
    """What a cell attacks. Golden work is done, or loaded, when it is first asked for.

    Attributes:
        tested: the network with its images; with its ``method``, once fitted, the detector.
    """

    def __init__(self, settings: SubjectSettings) -> None:
        with step("loading the network and its images"):
            self.tested = NetworkUnderTest(settings)
        self._told: set[tuple[str, LeftOut]] = set()
        self._clean_values: tuple[tuple, CleanValues] | None = None

    @cached_property
    def golden(self) -> Golden:
        """Fault-free results; the method is fitted after this."""
        tested = self.tested
        network = tested.network  # with a correcting protection, which says itself what it does
        with step("golden results: the detector without faults"):
            return golden_work(
                network,
                tested.method,
                tested.data,
                tested.training_batches,
                tested.batch_size,
                {**tested.identity, "code": tested.code},
                tested.pipeline,
                tested.settings.probes,
            )

    @cached_property
    def thresholds(self) -> Thresholds:
        """Set from the golden results of the calibration images."""
        return Thresholds(self.tested.settings, self.golden)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The detector to execute, with its range checks."""
        ranges = self.golden.ranges
        return self.tested.pipeline(self.tested.network, self.tested.method, ranges)

    @cached_property
    def traced(self) -> Traced | NotTraceable:
        """The detector as one graph for the incremental executor, or why there is none."""
        tested, pipeline = self.tested, self.pipeline
        batch = tested.images["id"][: tested.batch_size]
        content = {
            **tested.identity,
            "code": tested.code,
            "ranges": self.golden.ranges.to_json(),
            "shape": list(batch.shape),
        }
        key = content_key(content, batch, tested.batch_size)
        with step("graph of the detector for incremental execution"):
            try:
                return loaded_or_traced(
                    pipeline, batch, cache_folder("graphs") / f"{key}.safetensors"
                )
            except NotTraceable as reason:
                return reason
            finally:
                give_back_memory()

    @property
    def ready(self) -> bool:
        """Whether all that a first run waits for is there."""
        return "traced" in self.__dict__

    @cached_property
    def survey(self) -> Survey:
        """What a fault can hit in every pass, and what not."""
        _ = self.golden  # fits the method
        tested = self.tested
        with step("finding what faults can hit"):
            return survey(tested.network, tested.method, tested.images["id"][:3])

    @cached_property
    def parameters(self) -> list[Site]:
        """The parameters that a fault in memory can hit."""
        macs: dict[str, int] = {}
        for site in self.survey.sites["first_forward"]:
            macs[site.layer] = macs.get(site.layer, 0) + site.macs
        return parameter_sites(self.tested.network, macs)

    @cached_property
    def super_layers(self) -> frozenset[Call]:
        """The layer calls that every path of a forward pass goes through."""
        tested = self.tested
        return super_layers(tested.network, tested.images["id"][:2])

    def chosen(self, fault_model: FaultModel, fault_pass: str) -> list[Site]:
        """The sites of a pass that a fault model selects.

        Raises:
            ProgipError: there is none, or in one of them images cannot be told apart.
        """
        if fault_model.scope == "round":
            return _of_one_format(fault_model, fault_model.select(self.parameters))
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
        return _of_one_format(fault_model, chosen)

    def watched(self, protection: Protection) -> dict[str, int]:
        """At how many places the protection looks at, or corrects, values; for manifests.

        Raises:
            ProgipError: it watches the ranges of activations, and no activation is a module.
        """
        if isinstance(protection, Correcting):
            calls = corrected_calls(self.tested.network)
            return {} if calls is None else {"corrected_calls": calls}
        if not any(name.startswith("range_") for name in protection.watches):
            return {}
        if not self.golden.ranges.sites:
            raise nothing_to_check(f"protection '{protection.name}'", self.tested.plain)
        return {"range_checked_calls": len(self.golden.ranges.sites)}

    def clean_values(self, population: str, fault_pass: str, sites: list[Site]) -> CleanValues:
        """Of the evaluation images at these sites; those last asked for stay ready."""
        key = (population, fault_pass, tuple(site.key for site in sites))
        if self._clean_values is None or self._clean_values[0] != key:
            self._clean_values = None  # what is kept of another pass is freed first
            log.info("fault-free values of the %s images: %s pass", population, fault_pass)
            images, batch = self.tested.images[population], self.tested.batch_size
            reference = ReferenceExecutor(self.pipeline, sites, fault_pass, images, batch)
            memory = min(self.tested.settings.memory, 2**31)  # of the host, wherever runs are
            values = CleanValues(reference, memory // 4)
            self._clean_values = (key, values)
        return self._clean_values[1]


def _of_one_format(fault_model: FaultModel, sites: list[Site]) -> list[Site]:
    """The sites, whose codes must have the same bits. Raises ProgipError where they have not."""
    first = sites[0]
    for site in sites:
        if site.format.fields != first.format.fields:
            raise ProgipError(
                f"layer '{site.layer}' is held in '{site.format.name}' and '{first.layer}' in "
                f"'{first.format.name}', whose bits mean other things; choose layers of one format "
                "with fault_model.layer_types or number_format.layer_types"
            )
        if site.format.metadata_fields and site.axis != IMAGES_FIRST:
            raise ProgipError(
                f"layer '{site.layer}': '{site.format.name}' takes the first dimension of its "
                "tensor for the images, and it is not; leave it out"
            )
    fault_model.check_format(first.format)
    return sites


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

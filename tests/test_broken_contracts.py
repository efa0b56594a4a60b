"""Protections, OOD methods and fault models that break their contract are told how."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from progip.contracts import (
    BrokenContract,
    check_fault_model,
    check_ood_method,
    check_protection,
)
from progip.fault_models.base import Hits, Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.base import Detection, EnterPass, OODMethod, no_pass
from progip.ood_methods.odin import ODIN
from progip.protections.base import Evidence, Judgement, Limit, Protection, first_alarm


@dataclass(kw_only=True)
class Guard(Protection):
    """Holds its contract; subclasses break it in one place."""

    margin: float = 0.1

    watches: ClassVar[tuple[str, ...]] = ("score",)

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {"limit": float(clean["score"].max()) + self.margin}

    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        return first_alarm([("score", ~(evidence["score"] <= thresholds["limit"]))])


class TakesNaN(Guard):
    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        return first_alarm([("score", evidence["score"] > thresholds["limit"])])


class Peeks(Guard):
    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        return first_alarm([("x", ~(evidence["score"] + evidence["grad_max"] <= 1.0))])


class Relative(Guard):
    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        score = evidence["score"]
        return first_alarm([("score", ~(score <= np.nanmedian(score[:9])))])


class Unnamed(Guard):
    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        alarm, stage = super().judge(evidence, thresholds)
        return Judgement(alarm, np.full(len(stage), "", dtype=object))


class OtherLimits(Guard):
    def limits(self, thresholds: Any) -> tuple[Limit, ...]:
        return (Limit("score", "score", high=thresholds["limit"] - 1),)


class Writes(Guard):
    def judge(self, evidence: Evidence, thresholds: Any) -> Judgement:
        evidence["score"][0] = 0.0
        return super().judge(evidence, thresholds)


class Infinite(Guard):
    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {"limit": float("inf")}


@dataclass(kw_only=True)
class Untyped(Guard):
    options: Any = field(default_factory=object)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (TakesNaN, "takes NaN in score for fine"),
        (Peeks, "looks at 'grad_max', which it does not name in watches"),
        (Relative, "judges a run by the runs beside it"),
        (Unnamed, "must name a stage where it alarms"),
        (OtherLimits, "gives limits that say another thing than judge"),
        (Writes, "changes the evidence it judges"),
        (Infinite, "has a threshold not finite"),
        (Untyped, "has options that YAML cannot give"),
    ],
)
def test_broken_protections(broken: type[Guard], message: str) -> None:
    check_protection(Guard(name="guard"))
    with pytest.raises(BrokenContract, match=rf"^{broken.__name__} 'g' {message}"):
        check_protection(broken(name="g"))


@dataclass(kw_only=True)
class Energy(OODMethod):
    """Holds its contract: the log of the sum of exponentials, one pass."""

    passes: ClassVar[tuple[str, ...]] = ("first_forward",)
    gradient_vanishes: ClassVar[bool] = False

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        with torch.no_grad():
            enter("first_forward")
            logits = network(images)
        return Detection(logits, torch.zeros_like(images), images, self._score(logits))

    def _score(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits.double(), 1)


class Single(Energy):
    def _score(self, logits: Tensor) -> Tensor:
        return torch.logsumexp(logits, 1)


class Batch(Energy):
    def _score(self, logits: Tensor) -> Tensor:
        return super()._score(logits - logits.mean(0))


class Chance(Energy):
    def _score(self, logits: Tensor) -> Tensor:
        return super()._score(logits) + torch.rand(len(logits))


class Claims(Energy):
    passes: ClassVar[tuple[str, ...]] = ("first_forward", "backward")


class Forgets(Energy):
    shift = 0.0

    def fit(self, network: nn.Module, batches: Any) -> None:
        self.shift = 1.0

    def _score(self, logits: Tensor) -> Tensor:
        return super()._score(logits) + self.shift


class Spoils(Energy):
    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        network[0].bias += 1e-6  # type: ignore[index,operator]
        return super().detect(network, images, enter)


class Mutates(Energy):
    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        return super().detect(network, images.mul_(0.5), enter)


class NoGradient(ODIN):
    def gradient(self, loss: Tensor, images: Tensor) -> Tensor:
        return torch.zeros_like(images)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Single, "must give float64 scores, not torch.float32"),
        (Batch, "gives an image another score beside other images"),
        (Chance, "gives other results a second time"),
        (Claims, "announces the passes first_forward instead of first_forward, backward"),
        (Forgets, r"gives other results after load_state\(state\(\)\)"),
        (Spoils, "gives other results a second time|changes '0.bias' of the network"),
        (Mutates, "changes the images it is given"),
        (NoGradient, "declares a backward pass, but its gradient is zero"),
    ],
)
def test_broken_methods(broken: type[OODMethod], message: str) -> None:
    check_ood_method(Energy(name="energy"))
    with pytest.raises(BrokenContract, match=rf"^{broken.__name__} 'm' ({message})"):
        check_ood_method(broken(name="m"))


class ByBlock(SingleBitFlip):
    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        return super().plan(sites, images, seed + start, key, start, stop)


class Careless(SingleBitFlip):
    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        return super().plan(sites, images, 0, "always", start, stop)


class TooFar(SingleBitFlip):
    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        table = super().plan(sites, images, seed, key, start, stop)
        far = pa.array(table["neuron"].to_numpy() + 140)
        return table.set_column(table.schema.get_field_index("neuron"), "neuron", far)


class Doubled(SingleBitFlip):
    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        return Hits(*(np.repeat(part, 2) for part in super().hits(sites, plan, seed, key)[:4]))


class Invents(SingleBitFlip):
    def select(self, sites: list[Site]) -> list[Site]:
        return [*super().select(sites), Site("ghost", 0, "Conv2d", (1,), 1, 0)]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ByBlock, "draws a run's fault by where its plan begins"),
        (Careless, "draws the same faults whatever the seed"),
        (TooFar, "plans neuron .* too many"),
        (Doubled, "hits a value of a run twice"),
        (Invents, "must select some of the sites it is given"),
    ],
)
def test_broken_fault_models(broken: type[SingleBitFlip], message: str) -> None:
    with pytest.raises(BrokenContract, match=rf"^{broken.__name__} 'f' {message}"):
        check_fault_model(broken(name="f"))

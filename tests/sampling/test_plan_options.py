"""What sampling plans refuse, and what they say then."""

import numpy as np
import pyarrow as pa
import pytest
from small_fault_space import BITS, CORRECT, SITES, population

from progip.errors import ProgipError
from progip.fault_models.base import FaultModel, Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.sampling.base import FaultSpace, SamplingPlan
from progip.sampling.importance import Importance
from progip.sampling.stratified import Stratified


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Stratified(name="s", by=["bit", "bit"]), "sampling.by"),
        (lambda: Stratified(name="s", by=[]), "sampling.by"),
        (lambda: Stratified(name="s", by=["pass"]), "sampling.by"),
        (lambda: Stratified(name="s", by=["margin", "correct"]), "leave correct out"),
        (lambda: Stratified(name="s", pilot_even=1), "sampling.pilot_even=1"),
        (lambda: unknowing(Stratified(name="s")), "leave out change"),
        (lambda: unknowing(Stratified(name="s", by=["margin"])), "leave out margin"),
        (lambda: Stratified(name="s", allocation="best"), "sampling.allocation"),
        (lambda: Stratified(name="s", aim="speed"), "sampling.aim"),
        (lambda: Stratified(name="s", pilot=5), "sampling.pilot=5"),
        (lambda: Stratified(name="s", defensive=0), "sampling.defensive=0"),
        (lambda: Importance(name="i", defensive=1.5), "sampling.defensive=1.5"),
        (lambda: Importance(name="i", bit_odds={3: -1}), "odds of 3 are -1"),
        (lambda: draw(Importance(name="i", bit_odds={7: 2})), "never hits bit 7"),
        (lambda: draw(Importance(name="i", layer_odds={"x": 2})), "stratum without sites"),
        (lambda: draw(Importance(name="i", layer_odds={"(": 2})), "not a regular expression"),
        (
            lambda: draw(Importance(name="i", bit_odds={3: 0, 30: 0, 31: 0})),
            "every odds is 0",
        ),
    ],
)
def test_wrong_options_are_named(make, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        make()


def unknowing(plan: Stratified) -> np.ndarray:
    """Shares in a population of which neither values nor scores are known."""
    return plan.shares(FaultSpace(SingleBitFlip(name="f"), SITES, CORRECT))


def draw(plan: SamplingPlan) -> pa.Table:
    return plan.plan(population(), 0, "k", 0, 10)


def test_odds_of_bits_that_the_fault_model_leaves_out_say_nothing() -> None:
    some = draw(Importance(name="i", bit_odds={30: 5, 7: 2}))
    assert some.equals(draw(Importance(name="i", bit_odds={30: 5})))


def test_a_layer_without_neurons_is_a_stratum_without_sites() -> None:
    empty = [*SITES, Site("gone", 0, "Linear", (0,), 0, 0)]
    model = SingleBitFlip(name="f", weighting="neuron")
    with pytest.raises(ProgipError, match="layer=gone#0 is a stratum without sites"):
        Stratified(name="s", by=BITS).shares(FaultSpace(model, empty, CORRECT))


def test_other_fault_models_have_no_strata() -> None:
    class Burst(FaultModel):
        select = plan = None  # type: ignore[assignment]

    Burst.__abstractmethods__ = frozenset()
    with pytest.raises(ProgipError, match="no strata; use sampling=uniform"):
        FaultSpace(Burst(name="burst"), SITES, CORRECT).atoms  # noqa: B018

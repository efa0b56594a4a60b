"""Correcting protections, executed incrementally: the columns of the reference, bit for bit."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from test_incremental import ALL_TYPES, assert_equal, images_of
from test_rounds import plan_of
from tiny_networks import labelled, tiny_network
from torch import Tensor, nn

from progip.config import composed
from progip.config.building import build
from progip.engine.corrected import CorrectedPipeline
from progip.engine.incremental import (
    IncrementalExecutor,
    IncrementalRounds,
    NotTraceable,
    Traced,
    loaded_or_traced,
)
from progip.engine.pieces import Draw
from progip.engine.ranges import RangeTable, profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.roulette import Roulette
from progip.engine.rounds import RoundExecutor
from progip.engine.sites import find_sites
from progip.fault_models.base import FaultModel, Site, named_hits
from progip.fault_models.flipped_bits import OneBit
from progip.fault_models.parameters import parameter_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.models.calls import Call, hook_calls
from progip.ood_methods.none import NoMethod
from progip.ood_methods.odin import ODIN
from progip.protections.base import Protection
from progip.protections.bounded.base import BoundedActivation
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.correcting import Correcting, State, shared_copy
from progip.protections.range_restriction import RangeRestriction
from progip.records import PASSES

CONF = Path(__file__).resolve().parents[2] / "conf"
BATCH, RUNS = 4, 160
SMALL = ["fitact_short", "ft_clipact_short", "proact_short"]  # only their search is shorter


def protection_of(name: str, *options: str) -> Protection:
    chosen = (f"protection={name}", *(f"protection.{option}" for option in options))
    return build(composed(list(chosen), CONF)["protection"], Protection, "protection")


SHIPPED = [
    path.stem
    for path in sorted((CONF / "protection").glob("*.yaml"))
    if path.stem not in SMALL and isinstance(protection_of(path.stem), Correcting)
]
OTHERS = {
    "gradient_statistics": [
        ("checksum=pixel", "activation_check=literal", "margin=0.0"),
        ("threshold=sigma_k", "k=2.0", "granularity=channel", "locate=first_of_run"),
        ("threshold=alpha", "granularity=layer", "locate=iterative", "checksum_weights=index"),
    ],
    "ranger_clip": [("coverage=0.9", "nan_policy=upper")],
    "ranger_bound": [
        ("replacement=soft_zero", "granularity=channel", "nan_policy=bound"),
        ("replacement=clamp", "granularity=neuron", "nan_policy=propagate"),
    ],
}
KINDS = [(name, *options) for name in SHIPPED for options in ((), *OTHERS.get(name, ()))]
every = pytest.mark.parametrize("kind", KINDS, ids=" ".join)


def detector(kind: tuple[str, ...], images: Tensor) -> CorrectedPipeline:
    name, *options = kind
    protection = protection_of(name, *options)
    assert isinstance(protection, Correcting)
    network = tiny_network().to(memory_format=torch.channels_last)
    fitted = protection
    if isinstance(protection, BoundedActivation):  # other bounds are as good, without their search
        fitted = RangerBound(name="b", granularity=protection.granularity, images=8, validation=0)
    state = fitted.fit(network, labelled([images]))
    copy = protection.protect(network, state)
    method = ODIN(name="odin", std=[0.5] * 3, epsilon=0.02)
    with profiling(copy, images[:2]) as ranges, torch.no_grad():
        copy(images)
    return CorrectedPipeline(copy, method, ranges, network)


def images_last(count: int) -> Tensor:
    return images_of(count).contiguous(memory_format=torch.channels_last)


def draw_of(model: FaultModel, sites: list[Site]) -> Draw | None:
    if not model.many:
        return None
    return lambda plan: model.hits(sites, plan, 3, "cell")


@every
def test_one_hit_and_several(kind: tuple[str, ...]) -> None:
    images = images_last(10)
    pipeline = detector(kind, images)
    traced = Traced(pipeline, images[:BATCH])
    sites = find_sites(pipeline.network, pipeline.method, images[:2])
    corrected = met = 0
    models = (
        SingleBitFlip(name="one", layer_types=ALL_TYPES),
        OneBit(name="several", rate=0.003, layer_types=ALL_TYPES),
    )
    for fault_pass, model in product(PASSES, models):
        chosen = model.select(sites[fault_pass])
        draw = draw_of(model, chosen)
        plan = model.plan(chosen, len(images), 3, "cell", 0, RUNS)
        expected = ReferenceExecutor(pipeline, chosen, fault_pass, images, BATCH, draw).run(plan)
        quick = IncrementalExecutor(traced, chosen, fault_pass, images, draw=draw)
        assert_equal(expected, quick.run(plan))
        corrected += int((expected["corrected"] > 0).sum())
        met += int(expected["corrected_hit"].sum())
    assert corrected > 10
    assert met > 10


@every
def test_faults_in_memory(kind: tuple[str, ...]) -> None:
    """Bounds, too, which are parameters of the protected network."""
    images = images_last(2 * BATCH)
    pipeline = detector(kind, images)
    sites = parameter_sites(pipeline.network, {})
    faults = [(i, neuron, bit) for i in range(len(sites)) for neuron in (0, 2) for bit in (20, 30)]
    faults = [fault for fault in faults if fault[1] < sites[fault[0]].neurons]
    plan = plan_of(sites, faults, len(images))
    traced = Traced(pipeline, images[:BATCH])
    expected = RoundExecutor(pipeline, sites, images, BATCH).run(plan)
    quick = IncrementalRounds(traced, sites, images, lambda maps: named_hits(sites, maps))
    assert_equal(expected, quick.run(plan))
    assert (expected["corrected"] > 0).any()


def test_a_stored_graph_and_ended_runs(tmp_path: Path) -> None:
    images = images_last(10)
    path = tmp_path / "graph.safetensors"
    first = loaded_or_traced(detector(("gradient_statistics",), images), images[:BATCH], path)
    pipeline = detector(("gradient_statistics",), images)
    again = loaded_or_traced(pipeline, images[:BATCH], path)
    assert [node.replaces or node.target for node in again.nodes] == [
        node.replaces or node.target for node in first.nodes
    ]
    model = SingleBitFlip(name="one", layer_types=ALL_TYPES)
    found = find_sites(pipeline.network, pipeline.method, images[:2])["first_forward"]
    sites = model.select(found)
    plan = model.plan(sites, len(images), 3, "cell", 0, RUNS)
    expected = ReferenceExecutor(pipeline, sites, "first_forward", images, BATCH).run(plan)
    assert_equal(expected, IncrementalExecutor(again, sites, "first_forward", images).run(plan))
    late = IncrementalExecutor(again, sites, "first_forward", images, late=True)
    assert_equal(expected, late.run(plan))
    ending = Roulette(0.2, 1e-3, 1e-1, first=0, seed=0, key="k")
    quick = IncrementalExecutor(again, sites, "first_forward", images, roulette=ending).run(plan)
    kept = quick["roulette"] > 0
    assert 0 < kept.sum() < RUNS
    for name, values in expected.items():
        np.testing.assert_array_equal(values[kept], quick[name][kept], err_msg=name)
    assert not quick["corrected_hit"][~kept].any()


class Mean(RangeRestriction):
    """Bounds the outputs of the first ReLU by a mean over the batch, read as a number."""

    def protect(self, network: nn.Module, state: State) -> nn.Module:
        result, record = shared_copy(network)

        def bound(call: Call, _: object, output: Tensor) -> Tensor | None:
            high = output.mean().item()
            return record.mend(call, output, None, lambda y, _: (y.clamp(max=high), y > high))

        hook_calls(result, {"1"}, bound, record.start)
        return result


def test_statistics_over_a_batch_stay_whole() -> None:
    images = images_last(BATCH)
    network = tiny_network()
    copy = Mean(name="mean").protect(network, {})
    pipeline = CorrectedPipeline(copy, NoMethod(name="none"), RangeTable(), network)
    assert bool(pipeline(images).flagged.all())
    with pytest.raises(NotTraceable):
        Traced(pipeline, images)

"""A graph that comes from a file computes what the traced one does, or is not used."""

from pathlib import Path

import pyarrow as pa
import pytest
from test_incremental import assert_equal, images_of, pipeline_of
from test_rounds import plan_of
from tiny_networks import tiny_network
from torch import Tensor

from progip.engine.incremental import IncrementalExecutor, IncrementalRounds, stored
from progip.engine.incremental.tracing import Traced
from progip.engine.pipeline import Pipeline
from progip.engine.rounds import RoundExecutor
from progip.engine.sites import find_sites
from progip.fault_models.base import Hits
from progip.fault_models.parameter_bit import ParameterBit
from progip.fault_models.parameters import parameter_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.number_formats import emulated
from progip.number_formats.integer import Integer
from progip.records import PASSES

BATCH = 4


@pytest.fixture
def traced_never(monkeypatch) -> None:
    """Tracing fails from now on."""

    def fail(*_: object) -> None:
        raise AssertionError("traced again")

    monkeypatch.setattr(Traced, "_build", fail)


def rounded(images: Tensor) -> Pipeline:
    network = tiny_network()
    Integer(name="int8", width=8, scale=4.0, rounding="stochastic").prepare(network, list)
    return pipeline_of(network, images)


def kept(path: Path, pipeline: Pipeline, images: Tensor) -> Traced:
    traced = stored.loaded_or_traced(pipeline, images[:BATCH], path)
    assert path.exists()
    return traced


@pytest.mark.parametrize("kind", ["odin", "mahalanobis", "rounded"])
def test_a_stored_graph_gives_the_same_rows(kind: str, tmp_path: Path, request) -> None:
    images = images_of(10)

    def detector() -> Pipeline:
        return rounded(images) if kind == "rounded" else pipeline_of(tiny_network(), images, kind)

    pipeline, path = detector(), tmp_path / "graph.safetensors"
    first = kept(path, pipeline, images)
    emulated._CONVERSIONS.clear()  # as in another process
    other = detector()
    request.getfixturevalue("traced_never")
    again = kept(path, other, images)
    assert again is not first
    sites = find_sites(pipeline.network, pipeline.method, images[:2])
    for fault_pass in PASSES:
        model = SingleBitFlip(name="flip", layer_types=["Conv2d", "Linear", "BatchNorm2d"])
        chosen = model.select(sites[fault_pass])
        plan = model.plan(chosen, len(images), 0, fault_pass, 0, 100)
        rows = [
            IncrementalExecutor(traced, chosen, fault_pass, images).run(plan)
            for traced in (first, again)
        ]
        assert_equal(*rows)


def test_faults_in_parameters_find_them_in_a_stored_graph(tmp_path: Path, request) -> None:
    images = images_of(8)
    pipeline = pipeline_of(tiny_network(), images)
    kept(tmp_path / "graph.safetensors", pipeline, images)
    request.getfixturevalue("traced_never")
    traced = kept(tmp_path / "graph.safetensors", pipeline, images)
    model = ParameterBit(name="bit")
    sites = model.select(parameter_sites(pipeline.network, {}))
    plan = plan_of(sites, [(0, 3, 30), (1, 5, 30), (len(sites) - 1, 2, 31)], len(images))

    def draw(maps: pa.Table) -> Hits:
        return model.hits(sites, maps, 0, "cell")

    expected = RoundExecutor(pipeline, sites, images, BATCH).run(plan)
    found = IncrementalRounds(traced, sites, images, draw).run(plan)
    assert_equal(expected, found)


def test_a_damaged_file_or_one_of_other_ranges_is_not_used(tmp_path: Path, caplog) -> None:
    images, path = images_of(8), tmp_path / "graph.safetensors"
    pipeline = pipeline_of(tiny_network(), images)
    kept(path, pipeline, images)
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole.replace(b"aten.relu.default", b"aten.sigh.default")):
        path.write_bytes(damaged)
        caplog.clear()
        kept(path, pipeline, images)
        assert "is of no use" in caplog.text
        assert len(path.read_bytes()) == len(whole)
    caplog.clear()
    kept(path, pipeline_of(tiny_network(), images_of(8, seed=5)), images)  # of other ranges
    assert "computes other values than the network" in caplog.text

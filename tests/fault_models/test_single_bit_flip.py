"""The plan: random access, its law, and its errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from progip import records
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.random import integers, uniforms
from progip.fault_models.single_bit_flip import NoFault, SingleBitFlip

SITES = [
    Site("conv1", 0, "Conv2d", (4, 8, 8), 256, 1000),
    Site("relu", 0, "ReLU", (4, 8, 8), 256, 0),
    Site("relu", 1, "ReLU", (4, 4, 4), 64, 0),
    Site("block.conv2", 0, "Conv2d", (8, 4, 4), 128, 2000),
    Site("fc", 0, "Linear", (10,), 10, 80),
]


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(1, 50), st.integers(0, 9))
def test_numbers_of_a_run_depend_on_seed_key_and_run_alone(
    seed: int, start: int, count: int, skip: int
) -> None:
    whole = uniforms(seed, "cell", 0, start + count)
    part = uniforms(seed, "cell", start, start + count)
    np.testing.assert_array_equal(whole[start:], part)
    if skip < count:
        np.testing.assert_array_equal(
            part[skip:], uniforms(seed, "cell", start + skip, start + count)
        )


def test_numbers_are_pinned() -> None:
    """A change here changes every published plan: it needs a new schema version."""
    first = uniforms(0, "cell", 0, 1)[0]
    assert first.tolist() == PINNED
    assert not np.array_equal(first, uniforms(1, "cell", 0, 1)[0])
    assert not np.array_equal(first, uniforms(0, "other", 0, 1)[0])


PINNED = [0.6963666349926361, 0.5624052948089683, 0.6255355796082264, 0.23428836175313195]


@given(st.integers(1, 2**40), st.floats(0, 1, exclude_max=True))
def test_integers_stay_below_their_bound(bound: int, uniform: float) -> None:
    value = int(integers(np.array([uniform]), bound)[0])
    assert 0 <= value < bound


def test_layer_uniform_law() -> None:
    model = SingleBitFlip(name="f")
    chosen = model.select(SITES)
    assert [s.layer for s in chosen] == ["conv1", "block.conv2", "fc"]
    plan = model.plan(chosen, 50, 3, "k", 0, 30_000).to_pandas()
    assert chisquare(plan["layer"].value_counts()).pvalue > 1e-4
    assert chisquare(plan["bit"].value_counts()).pvalue > 1e-4
    assert chisquare(plan["sample_index"].value_counts()).pvalue > 1e-4
    assert chisquare(plan[plan.layer == "conv1"]["neuron"].value_counts()).pvalue > 1e-4
    assert set(plan["bit"]) == set(range(32))
    assert plan.groupby("layer")["neuron"].max().to_dict() == {
        "conv1": 255, "block.conv2": 127, "fc": 9,
    }  # fmt: skip


def test_neuron_uniform_law() -> None:
    model = SingleBitFlip(name="f", weighting="neuron", layer_types=["Conv2d", "Linear", "ReLU"])
    chosen = model.select(SITES)
    plan = model.plan(chosen, 50, 3, "k", 0, 60_000).to_pandas()
    counts = plan.groupby(["layer", "call"]).size()
    expected = {(s.layer, s.call): s.neurons for s in chosen}
    total = sum(expected.values())
    assert chisquare(
        [counts[key] for key in expected], [60_000 * n / total for n in expected.values()]
    ).pvalue > 1e-4  # fmt: skip
    within = plan[(plan.layer == "relu") & (plan.call == 1)]["neuron"]
    assert within.between(0, 63).all()
    assert chisquare(within.value_counts().reindex(range(64), fill_value=0)).pvalue > 1e-4


def test_given_bits_and_layers() -> None:
    model = SingleBitFlip(name="f", bits=[30, 23], layers=r"block\..*")
    plan = model.plan(model.select(SITES), 5, 0, "k", 0, 200).to_pandas()
    assert set(plan["bit"]) == {23, 30}
    assert set(plan["layer"]) == {"block.conv2"}


def test_null_fault_names_no_bit() -> None:
    model = NoFault(name="none")
    plan = model.plan(model.select(SITES), 5, 0, "k", 0, 20)
    assert plan.schema == records.PLAN
    assert set(plan["bit"].to_pylist()) == {-1}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"bits": []}, "bits"),
        ({"bits": [32]}, "0..31"),
        ({"bits": [3, 3]}, "distinct"),
        ({"weighting": "mac"}, "weighting='mac'"),
        ({"layers": "("}, "regular expression"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named.replace("(", r"\(")):
        SingleBitFlip(name="f", **options)


def test_a_filter_that_matches_nothing_lists_the_layers() -> None:
    with pytest.raises(ProgipError, match=r"matches no layer; there are conv1, block\.conv2, fc"):
        SingleBitFlip(name="f", layers="nope").select(SITES)
    with pytest.raises(ProgipError, match="its layer types are Conv2d, Linear, ReLU"):
        SingleBitFlip(name="f", layer_types=["GRU"]).select(SITES)


def test_every_layer_and_all_but_the_ends() -> None:
    every = SingleBitFlip(name="f", layer_types=None)
    assert every.select(SITES) == SITES
    inner = SingleBitFlip(name="f", layer_types=None, skip_first=True, skip_last=True)
    assert inner.select(SITES) == SITES[1:-1]
    assert SingleBitFlip(name="f", layer_types=None, skip_first=True).select(SITES) == SITES[1:]
    with pytest.raises(ProgipError, match="nothing is left of the 2 chosen layers without the"):
        inner.select(SITES[:2])

"""Passes by name: their order, their kinds, which gradient is of which forward pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progip import records
from progip.passes import (
    backward_of,
    forward_of,
    is_backward,
    is_forward,
    is_pass,
    passes_of,
    place_of,
)


@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_a_sequence_of_passes(steps: int, random: object) -> None:
    passes = passes_of(steps)
    assert len(set(passes)) == len(passes) == 2 * steps + 1
    assert all(map(is_pass, passes))
    mixed = list(passes)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert tuple(sorted(mixed, key=place_of)) == passes
    for forward, backward in zip(passes[:-1:2], passes[1::2], strict=True):
        assert is_forward(forward)
        assert not is_backward(forward)
        assert is_backward(backward)
        assert not is_forward(backward)
        assert (backward_of(forward), forward_of(backward)) == (backward, forward)
    assert is_forward(passes[-1])
    assert backward_of(passes[-1]) == ""


def test_one_step_has_the_names_of_old() -> None:
    assert passes_of(1) == records.PASSES


@pytest.mark.parametrize("name", ["forward_1", "backward_0", "forward_02", "forward", "all", ""])
def test_other_names_are_none(name: str) -> None:
    assert not is_pass(name)
    assert not is_forward(name)

"""What change is tiny, by a pilot."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from progip.sampling.roulette import MOST_AT_FAULT, MOST_AT_LOGITS, limits, spared

RUNS = 2000


def pilot(failing: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Changes over thirty decades, none at the logits; the first runs fail at given changes."""
    change = 10.0 ** np.random.default_rng(seed).uniform(-8, 22, RUNS)
    failed = np.zeros(RUNS, dtype=bool)
    failed[: len(failing)] = True
    change[: len(failing)] = failing
    return failed, change.astype(np.float32), np.full(RUNS, np.nan, dtype=np.float32)


def test_nothing_failed_among_tiny_changes() -> None:
    found = limits(*pilot([5.0] * 40), np.ones(RUNS), 0.1)
    assert found == (MOST_AT_FAULT, 0.0)  # nothing to end at the logits


def test_failures_below_lower_the_limit_or_end_nothing() -> None:
    some = limits(*pilot([5.0] * 30 + [0.02] * 10), np.ones(RUNS), 0.1)[0]
    assert 0 < some < 0.02
    assert limits(*pilot([1e-9] * 40), np.ones(RUNS), 0.1)[0] == 0.0


def test_weights_say_how_much_a_failure_matters() -> None:
    weight = np.ones(RUNS)
    weight[30:40] = 0.01  # the failures of tiny change
    assert limits(*pilot([5.0] * 30 + [0.02] * 10), weight, 0.1)[0] == MOST_AT_FAULT


def test_logits_count_what_was_not_ended_before() -> None:
    failed, at_fault, at_logits = pilot([5.0] * 40)
    big = at_fault > MOST_AT_FAULT
    at_logits[big] = 1e-4
    at_logits[:40] = 1.0
    assert limits(failed, at_fault, at_logits, np.ones(RUNS), 0.1)[1] == MOST_AT_LOGITS
    at_logits[:] = np.where(big, 1.0, 1e-4)
    assert limits(failed, at_fault, at_logits, np.ones(RUNS), 0.1)[1] == 0.0


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200))
def test_the_nearest_images_are_spared(distance: list[float]) -> None:
    values = np.array(distance)
    chosen = spared(values)
    assert len(chosen) == np.ceil(0.05 * len(values))
    rest = np.delete(values, chosen)
    assert not len(rest) or values[chosen].max() <= rest.min()

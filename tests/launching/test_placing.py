"""A job's share of a machine, from the launcher that started it."""

from typing import Any

import pytest

from progip.launching.placing import device_of, threads_of


@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        ({"n_jobs": 4}, 4),
        ({"n_jobs": -1}, 1),  # as many jobs as cores
        ({"n_jobs": -2}, 1),
        ({"n_jobs": 3}, 5),
        ({"n_jobs": 64}, 1),
        ({"cpus_per_task": 8}, 8),
        ({"cpus_per_task": None}, 1),
        ({"ray": {"remote": {"num_cpus": 2}}}, 2),
        ({"ray": {"remote": {}}}, 1),
    ],
)
def test_workers_do_not_fight_over_cores(launcher: dict[str, Any], threads: int) -> None:
    assert threads_of(launcher, 16) == threads


def test_several_gpus_are_each_used() -> None:
    assert [device_of(job, 2) for job in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert device_of(3, 1) == device_of(3, 0) == "auto"  # the launcher has chosen, or there is none

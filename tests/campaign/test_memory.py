"""Peak memory is a property of the network and of ``golden_memory``, not of the number of runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEASURE = """
import resource, runpy, sys
from progip.campaign import pace
pace.BLOCK_SECONDS = 1.0  # many blocks in a test's time
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(tmp_path: Path, runs: int, *overrides: str) -> int:
    """Peak resident KiB of a process that executes one cell."""
    command = [sys.executable, "-c", MEASURE, "run.py", f"runs={runs}", "shard_size=1000"]
    command += ["threads=1", "protection=none", f"outputs={tmp_path}/{runs}", *overrides]
    environment = os.environ | {"PROGIP_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("peak", 1)[1])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", ["incremental", "reference"])
def test_peak_memory_does_not_grow_with_runs(tmp_path: Path, executor: str) -> None:
    few, many = (2000, 40_000) if executor == "incremental" else (500, 5000)
    setting = f"executor={executor}"
    peak(tmp_path, 10, setting)  # golden work is done and cached by this one
    assert peak(tmp_path, many, setting) < 1.05 * peak(tmp_path, few, setting)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_golden_memory_bounds_the_peak(tmp_path: Path) -> None:
    """What the peak gains over a small limit is less than what the limit gained."""
    small, large = 32 * 2**20, 512 * 2**20
    peak(tmp_path, 10, f"golden_memory={small}")
    peak(tmp_path, 10, f"golden_memory={large}")
    low = peak(tmp_path, 4000, f"golden_memory={small}")
    high = peak(tmp_path, 4001, f"golden_memory={large}")
    assert high - low < (large - small) >> 10

"""Real launchers: the same rows however many workers share the work, and whoever is killed."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CELLS = ("pass=backward", "population=id,ood", "runs=120", "shard_size=20", "threads=1")


def needs(launcher: str) -> None:
    if importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
        pytest.skip(f"the {launcher} launcher is not installed: pip install -e '.[{launcher}]'")


def sweep(outputs: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "run.py", "-m", f"outputs={outputs}", f"name={name}", *CELLS]
    log = (outputs / f"{name}.log").open("w")
    return subprocess.Popen([*command, *overrides], cwd=ROOT, stdout=log, stderr=log, text=True)


def same_rows(outputs: Path, one: str, other: str) -> str:
    command = [sys.executable, "scripts/same_rows.py", str(outputs / one), str(outputs / other)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def workers_of(outputs: Path, name: str) -> set[int]:
    """The processes that work on the cells of a campaign, once there are rows; none before."""
    cells = (outputs / name).glob("*/*/*/*")
    found = [path.name for cell in cells for path in cell.iterdir()]
    if not any(name.startswith("part-") for name in found):
        return set()
    return {int(name.rpartition("-")[2]) for name in found if name.startswith(".running-")}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the plain sweep are there under the name ``plain``."""
    folder = tmp_path_factory.mktemp("launchers")
    assert sweep(folder, "plain").wait(240) == 0
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_one_two_or_four_joblib_workers(outputs: Path, workers: int) -> None:
    needs("joblib")
    options = ["hydra/launcher=joblib", f"hydra.launcher.n_jobs={workers}", "part=1,2"]
    assert sweep(outputs, f"joblib{workers}", *options).wait(400) == 0
    assert "240 in 2 cells" in same_rows(outputs, "plain", f"joblib{workers}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("launcher", "options"),
    [
        ("joblib", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]),
        ("submitit", ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"]),
        ("ray", ["hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"]),
    ],
)
def test_a_killed_worker_loses_nothing(outputs: Path, launcher: str, options: list[str]) -> None:
    needs(launcher)
    more = ["part=1,2", "runs=600"]
    first = sweep(outputs, launcher, *options, *more)
    workers: set[int] = set()
    while first.poll() is None and not workers:
        time.sleep(0.02)
        workers = workers_of(outputs, launcher)
    victim = min(workers)
    assert victim not in (first.pid, os.getpid())
    os.kill(victim, signal.SIGKILL)
    assert 0 < len(list((outputs / launcher).glob("*/*/*/_execution/part-*"))) < 60
    first.wait(400)
    assert sweep(outputs, launcher, *options, *more).wait(400) == 0
    if not (outputs / "plain600").exists():
        assert sweep(outputs, "plain600", "runs=600").wait(400) == 0
    assert "1,200 in 2 cells" in same_rows(outputs, "plain600", launcher)

"""Cost of everything but execution: a cell of 100,000 runs, status and report over 10 million rows.

    make bench-bookkeeping        (or: python benchmarks/bookkeeping.py [--rows 10_000_000])

The executor is replaced by one that returns prepared columns, so that what is left of a cell is
Hydra, planning, judging, sharding and the rest. Shares are of processor time, which other users of
the machine change little. Results: docs/results/bookkeeping.md.
"""

import argparse
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
RUNS = 100_000
CELL = ["pass=backward", "population=id", "threads=1"]


class Cost(NamedTuple):
    """Of one command: wall-clock and processor seconds, peak memory in MiB."""

    seconds: float
    processor: float
    memory: float


def cost_of(command: list[str]) -> Cost:
    """Run a command to its end."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    seconds = time.perf_counter() - begun
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def cell(outputs: Path, name: str, runs: int, *, prepared: bool) -> Cost:
    """One whole command, from the start of Python to its end."""
    script = [str(ROOT / "run.py")]
    if prepared:
        script = [str(Path(__file__).resolve()), "--without-execution"]
    overrides = [f"outputs={outputs}", f"name={name}", f"runs={runs}", *CELL]
    return cost_of([sys.executable, *script, *overrides])


def run_without_execution(overrides: list[str]) -> None:
    """run.py with an executor that repeats the observations of one real batch of plans."""
    from progip.campaign.execution import Execution, observed_table

    kept: dict[str, np.ndarray] = {}

    def prepared(self: Execution, plan: pa.Table) -> pa.Table:
        if not kept:
            kept.update(self._reference.run(plan.slice(0, 256)))
        columns = {name: np.resize(column, len(plan)) for name, column in kept.items()}
        return observed_table(plan, self._golden, columns)

    Execution.run = prepared  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "run.py"), "--config-path", str(ROOT / "conf"), *overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")


def large_campaign(source: Path, target: Path, rows: int) -> int:
    """Copies of one cell of 100,000 rows, as a campaign with its usual axes; returns the cells."""
    (manifest_file,) = [m for m in source.rglob("manifest.json") if m.parent.name == "progip"]
    manifest = json.loads(manifest_file.read_text())
    axes = {
        "model": [f"model{i}" for i in range(-(-rows // RUNS // 36))],
        "ood_method": ["odin", "mahalanobis"],
        "fault_pass": ["first_forward", "backward", "second_forward"],
        "population": ["id", "ood"],
        "protection": ["none", "progip", "ranger"],
    }
    points = list(product(*axes.values()))
    shutil.copytree(
        manifest_file.parent.parent / "_execution",
        target / "_execution",
        ignore=shutil.ignore_patterns("part-*"),
    )
    for number, point in enumerate(points):
        names = {**manifest["cell"], **dict(zip(axes, point, strict=True))}
        folder = target / f"cell{number}"
        folder.mkdir(parents=True)
        identity = {**manifest["identity"], "protection": {"name": names["protection"]}}
        content = {**manifest, "cell": names, "identity": identity}
        (folder / "manifest.json").write_text(json.dumps(content))
        for shard in manifest_file.parent.glob("part-*.parquet"):
            shutil.copyfile(shard, folder / shard.name)
    return len(points)


def show(what: str, cost: Cost) -> None:
    """One line."""
    times = f"{cost.processor:9.1f} s {cost.seconds:9.1f} s"
    print(f"{what:36} {times}   {cost.memory:,.0f} MiB at most", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sample", type=int, default=2000, help="runs that are really executed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        cell(outputs, "warm", 1, prepared=False)  # golden work is cached from here on
        start = cell(outputs, "one", 1, prepared=False)
        sample = cell(outputs, "sample", arguments.sample, prepared=False)
        full = cell(outputs, "full", RUNS, prepared=True)
        again = cell(outputs, "full", RUNS, prepared=True)
        execution = (sample.processor - start.processor) / arguments.sample * RUNS
        print(f"{'':36} {'processor':>11} {'wall clock':>11}")
        show("a command with one run", start)
        show(f"{RUNS:,} runs without execution", full)
        show("the finished cell again", again)
        print(f"{f'execution, from {arguments.sample:,} runs':36} {execution:9.1f} s")
        share = full.processor / (full.processor + execution)
        print(f"{'share of all but execution':36} {share:11.2%}")
        large = outputs / "large"
        cells = large_campaign(outputs / "full", large, arguments.rows)
        print(f"{cells} cells, {cells * RUNS:,} rows")
        for command in ("status", "report"):
            show(command, cost_of([sys.executable, "-m", "progip", command, str(large)]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--without-execution"]:
        run_without_execution(sys.argv[2:])
    else:
        main()

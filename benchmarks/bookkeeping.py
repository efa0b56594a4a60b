"""Cost of everything but execution: a cell of 100,000 runs, status and report over 10 million rows.

    make bench-bookkeeping        (or: python benchmarks/bookkeeping.py [--rows 10_000_000])

The executor is replaced by one that returns prepared columns, so that what is left of a cell is
Hydra, planning, judging, sharding and the rest. Results: docs/results/bookkeeping.md.
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
RUNS = 100_000
CELL = ["pass=backward", "population=id", "threads=1"]


def seconds_of(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and peak memory in MiB of a command."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024


def cell(outputs: Path, name: str, runs: int, *, prepared: bool) -> float:
    """Seconds of one whole command, from the start of Python to its end."""
    script = [str(ROOT / "run.py")]
    if prepared:
        script = [str(Path(__file__).resolve()), "--without-execution"]
    overrides = [f"outputs={outputs}", f"name={name}", f"runs={runs}", *CELL]
    return seconds_of([sys.executable, *script, *overrides])[0]


def run_without_execution(overrides: list[str]) -> None:
    """run.py with an executor that repeats the observations of one real batch of plans."""
    from progip.campaign import runner

    real = runner.ReferenceExecutor.run
    kept: dict[str, np.ndarray] = {}

    def prepared(self: runner.ReferenceExecutor, plan: pa.Table) -> dict[str, np.ndarray]:
        if not kept:
            kept.update(real(self, plan.slice(0, 256)))
        return {name: np.resize(column, len(plan)) for name, column in kept.items()}

    runner.ReferenceExecutor.run = prepared  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "run.py"), "--config-path", str(ROOT / "conf"), *overrides]
    runpy.run_path(sys.argv[0], run_name="__main__")


def large_campaign(source: Path, target: Path, rows: int) -> int:
    """Copies of one real cell's rows as a campaign of cells of 100,000 runs; returns the cells."""
    (manifest_file,) = [m for m in source.rglob("manifest.json") if m.parent.name == "progip"]
    shards = sorted(manifest_file.parent.glob("part-*.parquet"))
    manifest = json.loads(manifest_file.read_text())
    tables = [(path.name, pq.read_table(path)) for path in shards]
    count = rows // RUNS
    for number in range(count):
        names = {**manifest["cell"], "protection": f"protection{number}"}
        folder = target / "cells" / names["protection"]
        folder.mkdir(parents=True)
        identity = {**manifest["identity"], "protection": {"name": names["protection"]}}
        content = {**manifest, "cell": names, "identity": identity}
        (folder / "manifest.json").write_text(json.dumps(content))
        for name, table in tables:
            column = pa.array([names["protection"]] * len(table))
            place = table.schema.get_field_index("protection")
            pq.write_table(
                table.set_column(place, "protection", column), folder / name, compression="zstd"
            )
    return count


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
        execution = (sample - start) / arguments.sample * RUNS
        print(f"start of a command with one run      {start:9.2f} s")
        print(f"{RUNS:,} runs without execution      {full:9.2f} s")
        print(
            f"execution of {RUNS:,} runs           {execution:9.0f} s (from {arguments.sample:,})"
        )
        print(f"share of all but execution           {full / (full + execution):9.2%}")
        print(f"the finished cell again              {again:9.2f} s")
        large = outputs / "large"
        cells = large_campaign(outputs / "full", large, arguments.rows)
        print(f"{cells} cells, {cells * RUNS:,} rows")
        for command in ("status", "report"):
            seconds, memory = seconds_of([sys.executable, "-m", "progip", command, str(large)])
            print(f"{command:36} {seconds:9.2f} s, {memory:,.0f} MiB at most")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--without-execution"]:
        run_without_execution(sys.argv[2:])
    else:
        main()

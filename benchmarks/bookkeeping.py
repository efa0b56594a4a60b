"""Cost of everything but execution: a cell of 100,000 runs, status and report over 10 million rows.

    make bench-bookkeeping        (or: python benchmarks/bookkeeping.py [--rows 10_000_000])

The cells are real ones, executed by the incremental executor: of the embedded network, and of
ResNet-20 where PROGIP_DATA names the folder of docs/data.md. Shares are of processor time, which
other users of the machine change little. Results: docs/results/bookkeeping.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from measured_command import BOOKKEEPING

ROOT = Path(__file__).resolve().parent.parent
RUNS = 100_000
CELL = ["pass=backward", "population=id", "threads=1", f"runs={RUNS}"]
RESNET20 = ["--config-dir", "campaigns", "--config-name", "sample_resnet20", "hydra.mode=RUN"]


def cost_of(command: list[str]) -> tuple[float, float, float]:
    """Run a command to its end; wall-clock and processor seconds, peak memory in MiB."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    seconds = time.perf_counter() - begun
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def cell(outputs: Path, name: str, *options: str) -> None:
    """One whole command on one cell, from the start of Python to its end, part by part."""
    result = outputs / f"{name}.json"
    script = str(ROOT / "benchmarks" / "measured_command.py")
    command = [sys.executable, script, str(result), *options, f"outputs={outputs}", f"name={name}"]
    cost_of([*command, *CELL])
    parts: dict[str, float] = json.loads(result.read_text())
    total = sum(parts.values())
    print(f"\n{name}: one cell of {RUNS:,} runs, one thread{'processor':>21} {'share':>9}")
    for part, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        mark = "*" if part in BOOKKEEPING else ""
        print(f"  {part + mark:54} {seconds:9.2f} s {seconds / total:9.2%}")
    share = sum(parts.get(part, 0.0) for part in BOOKKEEPING)
    print(f"  {'together':54} {total:9.2f} s")
    print(
        f"  {'* Hydra, sharding, bookkeeping':54} {share:9.2f} s {share / total:9.2%}", flush=True
    )


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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder)
        cell(outputs, "embedded")
        if "PROGIP_DATA" in os.environ:
            cell(outputs, "resnet20", *RESNET20)
        large = outputs / "large"
        cells = large_campaign(outputs / "embedded", large, arguments.rows)
        print(f"\n{cells} cells, {cells * RUNS:,} rows   processor  wall clock      memory")
        for command in ("status", "report"):
            wall, processor, memory = cost_of([sys.executable, "-m", "progip", command, str(large)])
            print(f"  {command:25} {processor:9.1f} s {wall:9.1f} s {memory:7,.0f} MiB", flush=True)


if __name__ == "__main__":
    main()

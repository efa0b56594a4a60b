"""How far a campaign is, from its folder alone: from any machine that sees it, while it runs."""

import math
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from progip.analysis.counting import count_cell
from progip.analysis.manifests import correction_of, read_cell, walk
from progip.analysis.precision import Precision, precision_of
from progip.errors import ProgipError
from progip.launching.launched import Job, Sweep, job_of, sweep_of
from progip.report import formats
from progip.statistics import Rate
from progip.storage.crash_log import ERROR, recorded_failure
from progip.storage.partial_runs import kept_runs
from progip.storage.progress import duration, heartbeats
from progip.storage.store import execution_folder

DONE, RUNNING, FAILED, STOPPED = "done", "running", "FAILED", "stopped"


@dataclass(frozen=True)
class CellStatus:
    """One cell.

    Attributes:
        name: its folder.
        state: `done`, `running` (a process gave a sign of life), `FAILED` (its last process left an
            error.txt) or `stopped`.
        planned: runs, NaN where nothing says how many.
        done: rows.
        failed: among them failures that no protection noticed.
        rate: of those among the runs that can fail.
        speed: runs/s of the living processes; NaN where none is alive.
        seconds_left: by that speed.
        error: the message of the failure.
        job: how it was started.
        warnings: what could not be counted.
        kept: runs that are executed besides, whose rows come with their whole shard.
        precision: of the rate that the cell has a margin for, None where it has none.
    """

    name: str
    state: str
    planned: float
    done: int
    failed: int
    rate: Rate | None
    speed: float
    seconds_left: float
    error: str | None
    job: Job | None
    warnings: tuple[str, ...] = ()
    precision: Precision | None = None
    kept: int = 0


@dataclass(frozen=True)
class Status:
    """A campaign: its cells, and the swept choices of the jobs that no cell shows yet."""

    folder: Path
    cells: tuple[CellStatus, ...]
    sweep: Sweep | None
    absent: tuple[dict[str, str], ...]

    @property
    def failed(self) -> list[CellStatus]:
        """The cells that failed."""
        return [cell for cell in self.cells if cell.state == FAILED]

    @property
    def commands(self) -> list[str]:
        """What finishes the rest, each to be given in the project's folder; none if all is done."""
        rest = [cell for cell in self.cells if cell.state != DONE]
        found = []
        if self.sweep and (
            self.absent or any(c.job and c.job.is_in(self.sweep.jobs) for c in rest)
        ):
            found.append(self.sweep.command)
            rest = [c for c in rest if not (c.job and c.job.is_in(self.sweep.jobs))]
        return found + [cell.job.command for cell in rest if cell.job]

    def text(self) -> str:
        """For a terminal."""
        lines = [f"Campaign {self.folder.resolve().name}", "", _table(self.cells), ""]
        planned = sum(c.planned for c in self.cells if not math.isnan(c.planned))
        states = [(s, sum(c.state == s for c in self.cells)) for s in _STATES]
        lines.append(
            f"{sum(c.done for c in self.cells):,} of {int(planned):,} planned runs; "
            + ", ".join(f"{n} {state}" for state, n in states if n)
            + (f", {len(self.absent)} not started" if self.absent else "")
        )
        lines += [
            "not started: " + " ".join(f"{k}={v}" for k, v in choice.items())
            for choice in self.absent[:_SHOWN]
        ]
        if len(self.absent) > _SHOWN:
            lines.append(f"not started: {len(self.absent) - _SHOWN} more")
        for cell in self.failed:
            lines += [f"FAILED {cell.name}", f"  {cell.error}"]
            if (self.folder / cell.name / ERROR).exists():
                lines.append(f"  {cell.name}/{ERROR}")
        lines += [
            f"{cell.name}: {cell.kept:,} more runs are executed and kept; their rows come with "
            "their whole shard"
            for cell in self.cells
            if cell.kept
        ]
        lines += [_asked(cell) for cell in self.cells if cell.precision]
        lines += [f"Warning: {text}" for cell in self.cells for text in cell.warnings]
        if self.commands:
            alive = any(cell.state == RUNNING for cell in self.cells)
            lines += [
                "",
                "What finishes the rest" + (", if what runs now does not:" * alive or ":"),
            ]
            lines += [f"  {command}" for command in self.commands]
        return "\n".join(lines)


_STATES = (DONE, RUNNING, STOPPED, FAILED)
_SHOWN = 12


def load_status(folder: Path) -> Status:
    """Look at every cell in the tree under a folder; writes nothing.

    Rows are streamed as in the report. Raises ProgipError where there is no campaign.
    """
    if not folder.is_dir():
        raise ProgipError(f"there is no folder {folder}; give the folder a campaign was written to")
    cells = tuple(
        _cell(folder, here, files)
        for here, files in walk(folder)
        if "manifest.json" in files or ERROR in files or (here / ".hydra").is_dir()
    )
    sweep = sweep_of(folder)
    if not cells and sweep is None:
        raise ProgipError(f"{folder} holds no cell of a campaign; run one there first")
    jobs = [cell.job for cell in cells if cell.job]
    absent = tuple(
        choice
        for choice in (sweep.jobs if sweep else ())
        if not any(job.is_of(choice) for job in jobs)
    )
    return Status(folder, cells, sweep, absent)


def _cell(root: Path, here: Path, files: list[str]) -> CellStatus:
    name = here.relative_to(root).as_posix()
    error, alive = recorded_failure(here), heartbeats(here)
    job, cell, counts, warnings = None, None, {}, []
    try:
        job = job_of(here)
        cell = read_cell(root, here, files)
        if cell is not None:
            counted = count_cell(cell)
            counts, warnings = counted.counts, counted.warnings
    except ProgipError as damage:  # this cell's trouble must not hide the others
        error = error or str(damage)
    rate, precision = None, None
    if cell is not None and counts.get("done"):
        rate = precision_of(counts["moments"], cell.manifest, "failure_rate", confidence=0.95).rate
        precision = precision_of(counts["moments"], cell.manifest)
    planned = float(cell.manifest["runs"]) if cell else job.planned if job else math.nan
    done = int(counts.get("done", 0))
    # each process tells the speed of all on the cell, since it began
    speed = max((beat.get("runs_per_second", 0.0) for beat in alive), default=0.0)
    return CellStatus(
        name=name,
        state=RUNNING if alive else FAILED if error else DONE if done >= planned else STOPPED,
        planned=planned,
        done=done,
        failed=int(counts.get("failures_left", 0)),
        rate=rate,
        speed=speed if alive else math.nan,
        seconds_left=(planned - done) / speed if alive and speed else math.nan,
        error=None if alive else error,
        job=job,
        warnings=tuple(warnings),
        precision=precision if precision and precision.target else None,
        kept=kept_runs(execution_folder(here, correction_of(cell) or None)) if cell else 0,
    )


def _asked(cell: CellStatus) -> str:
    """The half-width that a cell was asked for, the one it has, and the runs in between."""
    p = cell.precision
    assert p is not None
    have, want = (formats.percent(half) for half in (p.half_width, p.target))
    if p.runs_needed is None:
        rest = "no event yet to tell how many more runs that takes"
    elif p.runs_needed:
        rest = f"about {p.runs_needed:,} more runs"
        over = p.runs + p.runs_needed - cell.planned
        rest += f", {over:,.0f} beyond those planned" if over > 0 else ""
    else:
        rest = "reached"
    return (
        f"{cell.name}: {p.quantity} {formats.percent(p.rate.estimate)} % ± {have} "
        f"(n = {p.rate.n:,}), asked for ± {want}: {rest}"
    )


def _table(cells: tuple[CellStatus, ...]) -> str:
    headers = ["cell", "state", "done", "planned", "failures", "failure rate % (95 %)", "±", "n"]
    headers += ["runs/s", "left"]
    rows = [
        [
            cell.name,
            cell.state,
            f"{cell.done:,}",
            formats.count(cell.planned),
            f"{cell.failed:,}",
            _percent(cell.rate),
            _half_width(cell.rate),
            f"{cell.rate.n:,}" if cell.rate else formats.ABSENT,
            f"{cell.speed:,.1f}" if cell.speed > 0 else formats.ABSENT,
            formats.ABSENT if math.isnan(cell.seconds_left) else duration(cell.seconds_left),
        ]
        for cell in cells
    ]
    align = ["left", "left", *["right"] * 8]
    return tabulate(rows, headers, tablefmt="simple", colalign=align, disable_numparse=True)


def _percent(rate: Rate | None) -> str:
    if rate is None or not rate.n:
        return formats.ABSENT
    return f"{formats.percent(rate.estimate)} ({formats.span(rate.low, rate.high)})"


def _half_width(rate: Rate | None) -> str:
    return formats.percent((rate.high - rate.low) / 2) if rate and rate.n else formats.ABSENT

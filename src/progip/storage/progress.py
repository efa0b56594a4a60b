"""What a working process shows: a bar where a person looks, else heartbeat lines; always a file."""

import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from progip.statistics import Rate, rate_from_sums

log = logging.getLogger(__name__)

#: seconds between heartbeats; a process whose file is thrice as old is taken for dead
HEARTBEAT_SECONDS = 30.0
PREFIX = ".running-"


class Progress:
    """Shows that a process works on a cell, and how far that is; use it as a context manager.

    A daemon thread renews the file ``.running-HOST-PID`` in the cell's folder, so that ``status``
    sees from any machine who works there, also during golden work and long shards; the file goes
    at the end. The bar appears where stderr is a terminal and ``TQDM_DISABLE`` is not set.

    Args:
        name: of the cell, for bar and log lines.
        planned: runs of the cell.
        failures: columns of rows that tell a failure.
        base: column of the runs that can fail; "" for all.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        planned: int,
        failures: Sequence[str] = ("classification_failure", "detection_failure"),
        base: str = "originally_correct",
    ) -> None:
        self._failures_in, self._base = failures, base
        self.name, self.planned, self.done = name, planned, 0
        self._under_way = 0
        self._at_first, self._begun = 0, time.monotonic()
        self._executing = False
        self._sums = np.zeros(6)
        self._file = folder / f"{PREFIX}{socket.gethostname()}-{os.getpid()}"
        self._bar, self._above = tqdm(disable=True), contextlib.ExitStack()
        self._over, self._writing = threading.Event(), threading.Lock()
        self._written = 0.0
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Progress":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._bar.close()
        self._above.close()
        self._file.unlink(missing_ok=True)

    def begin(self, done: int) -> None:
        """Execution begins; ``done`` runs of the cell are in shards, whoever executed them."""
        self.done = self._at_first = done
        self._begun, self._executing = time.monotonic(), True
        hidden = bool(os.environ.get("TQDM_DISABLE")) or not sys.stderr.isatty()
        self._bar.close()
        self._bar = tqdm(
            total=self.planned,
            initial=done,
            desc=_short(self.name),
            unit=" runs",
            disable=hidden,
            **_width(),
        )
        if not hidden:  # log lines go above the bar instead of through it
            self._above.enter_context(logging_redirect_tqdm())

    def executed(self, runs: int) -> None:
        """Count runs of this process that are executed, in no whole shard yet."""
        self._under_way += runs
        self._bar.update(runs)
        self._write_now_and_then()

    def add(self, rows: pa.Table, done: int) -> None:
        """Count judged rows that ``executed`` counted; ``done`` runs of the cell are in shards."""
        failed = np.logical_or.reduce([rows[name].to_numpy() for name in self._failures_in])
        left = failed & ~rows["alarm"].to_numpy()
        weight = rows["weight"].to_numpy()
        base = rows[self._base].to_numpy() if self._base else np.ones(len(rows), dtype=bool)
        ended = "roulette" in rows.column_names
        counted = weight * rows["roulette"].to_numpy() if ended else weight
        for i, (mask, counts) in enumerate(((base, weight), (left, counted))):
            chosen = counts[mask]
            self._sums[3 * i : 3 * i + 3] += (len(chosen), chosen.sum(), np.square(chosen).sum())
        others = done - self.done - len(rows)
        self.done, self._under_way = done, self._under_way - len(rows)
        self._bar.set_postfix_str(f"failures {self._failures()}", refresh=False)
        self._bar.update(others)
        self._write_now_and_then()

    @property
    def reached(self) -> int:
        """Runs of the cell that are executed: in shards, or by this process."""
        return self.done + self._under_way

    @property
    def failure_rate(self) -> Rate:
        """Failures that nothing noticed among the runs of this process that can fail."""
        n, weight, squared, events, event_weight, event_squared = self._sums
        return rate_from_sums(
            n=int(n), events=int(events), weight=weight, weight_squared=squared,
            event_weight=event_weight, event_weight_squared=event_squared,
        )  # fmt: skip

    @property
    def runs_per_second(self) -> float:
        """Of all processes on this cell together, since this one began."""
        return (self.reached - self._at_first) / max(time.monotonic() - self._begun, 1e-9)

    def line(self) -> str:
        """One heartbeat: done, rate, time left, failure rate with its 95 % interval."""
        speed = self.runs_per_second
        text = f"{self.name}: {self.reached:,} of {self.planned:,} runs"
        if not speed:
            return f"{text}, the first ones under way; no rate is known yet"
        rest = duration(max(self.planned - self.reached, 0) / speed)
        return f"{text}, {speed:,.1f} runs/s, {rest} left, failures {self._failures()}"

    def _failures(self) -> str:
        rate = self.failure_rate
        if not rate.n:
            return "not judged yet"
        low, high = 100 * rate.low, 100 * rate.high
        return f"{100 * rate.estimate:.3g} % ({low:.3g} to {high:.3g}; n = {rate.n:,})"

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            self._write()
            if self._executing and self._bar.disable:
                log.info("%s", self.line())

    def _write_now_and_then(self) -> None:
        if time.monotonic() - self._written > 2:
            self._write()

    def _write(self) -> None:
        content: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "done": self.reached,
            "runs_per_second": self.runs_per_second if self._executing else 0.0,
        }
        self._written = time.monotonic()
        try:
            with self._writing:
                self._file.write_text(json.dumps(content))
        except OSError as error:  # whether rows can be written shows when they are
            log.warning("no heartbeat in %s: %s", self._file.parent, error.strerror)


def duration(seconds: float) -> str:
    """43 s, 12 min, 3.4 h, 2.1 days."""
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.{0 if size < 3600 else 1}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _short(name: str) -> str:
    """Method, pass and population of a cell's name, which as a whole does not fit into a line."""
    parts = name.split("/")
    return " ".join((parts[-3], parts[-1], parts[-4])) if len(parts) > 3 else name


def _width() -> dict[str, Any]:
    """Of a bar: a terminal that does not know its width would show none."""
    try:
        known = os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        known = False
    return {"dynamic_ncols": True} if known else {"ncols": 120, "nrows": 24}


def heartbeats(folder: Path) -> list[dict[str, Any]]:
    """What the living processes on a cell last said: host, pid, done, runs_per_second."""
    found = []
    for path in sorted(folder.glob(f"{PREFIX}*")):
        try:
            if not is_dead(path):
                text = path.read_text()
                # else it is just being written
                found.append(json.loads(text) if text.endswith("}") else {})
        except OSError:
            continue  # it ended just now
    return found


def remove_dead(folder: Path) -> None:
    """Remove the heartbeat files of killed processes."""
    for path in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if is_dead(path):
                path.unlink()


def is_own(path: Path) -> bool:
    """Whether a heartbeat file is that of this process."""
    return path.name == f"{PREFIX}{socket.gethostname()}-{os.getpid()}"


def is_dead(path: Path) -> bool:
    """Whether the process of a heartbeat file is gone, or, elsewhere, silent for too long."""
    host, _, pid = path.name.removeprefix(PREFIX).rpartition("-")
    if host == socket.gethostname() and pid.isdigit():
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
    return time.time() - path.stat().st_mtime > 3 * HEARTBEAT_SECONDS

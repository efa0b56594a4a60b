"""What is seen while a cell runs: a bar on a terminal, lines elsewhere, honest from the first."""

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from test_command_line import ROOT

from progip.storage.progress import Progress

ARGUMENTS = ("run.py", "runs=600", "shard_size=200", "protection=none", "pass=backward")


def on_a_terminal(tmp_path: Path, columns: int) -> str:
    """What run.py shows on a terminal of so many columns; 0: one that does not know its width."""
    leader, follower = pty.openpty()
    if columns:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("TQDM_DISABLE", "COLUMNS")}
    with subprocess.Popen(
        [sys.executable, *ARGUMENTS, f"outputs={tmp_path}"],
        cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=environment,
    ) as process:  # fmt: skip
        os.close(follower)
        shown = bytearray()
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
    os.close(leader)
    assert process.returncode == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [0, 120])
def test_a_bar_on_a_terminal(tmp_path: Path, columns: int) -> None:
    shown = on_a_terminal(tmp_path, columns)
    bars = re.findall(r"odin backward id: +(\d+)%\|[^|]*\| *([\d.]+k?)/600", shown)
    assert len(bars) > 2
    assert bars[-1] == ("100", "600")
    counts = [float(done) for _, done in bars]
    assert counts == sorted(counts)
    assert any(done % 200 for done in counts)  # counted inside a shard
    for line in shown.splitlines():
        if "][INFO]" in line:  # no line of the log lies in a bar
            assert line.rpartition("\r")[2].replace("\x1b[A", "").startswith("["), repr(line)


def test_lines_count_what_is_executed_and_say_what_is_not_known(tmp_path: Path) -> None:
    with Progress(tmp_path, "cell", 300_000) as progress:
        progress.begin(0)
        assert progress.line() == (
            "cell: 0 of 300,000 runs, the first ones under way; no rate is known yet"
        )
        time.sleep(0.01)
        progress.executed(500)
        assert re.fullmatch(
            r"cell: 500 of 300,000 runs, [\d,.]+ runs/s, .* left, failures not judged yet",
            progress.line(),
        )
        flags = {name: [False] * 400 for name in ("classification_failure", "detection_failure")}
        more = {"alarm": [False] * 400, "weight": [1.0] * 400, "originally_correct": [True] * 400}
        progress.add(pa.table({**flags, **more}), 900)  # with 500 of another process
        assert (progress.done, progress.reached) == (900, 1000)
        assert "cell: 1,000 of 300,000 runs" in progress.line()
        assert "failures 0 % (0 to 0.951; n = 400)" in progress.line()

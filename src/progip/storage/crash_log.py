"""Keeps the traceback of a failed cell beside its rows, for status and for whoever looks later."""

import contextlib
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from progip.storage.store import OtherConfiguration

ERROR = "error.txt"


@contextmanager
def failures_recorded(folder: Path) -> Iterator[None]:
    """Write ``error.txt`` into a cell's folder when the block raises; remove it when it succeeds.

    An interruption is no failure, and neither is a refusal of another configuration: the rows
    there are fine.
    """
    file = folder / ERROR
    try:
        yield
    except OtherConfiguration:
        raise
    except Exception as error:
        where = f"{socket.gethostname()}, process {os.getpid()}"
        text = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC on {where}\n{traceback.format_exc()}"
        with contextlib.suppress(OSError):  # the first error matters, not a full disk's second
            folder.mkdir(parents=True, exist_ok=True)
            message = " ".join(str(error).split())
            file.write_text(f"{text}\n{type(error).__name__}: {message}\n")
        raise
    file.unlink(missing_ok=True)


def recorded_failure(folder: Path) -> str | None:
    """The message of the failure recorded in a folder, None where there is none."""
    try:
        lines = (folder / ERROR).read_text().strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else "the record is empty; the disk may have been full"

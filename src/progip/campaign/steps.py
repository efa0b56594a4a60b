"""Says what a campaign does before its first run, and how long each step took."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from progip.storage.progress import duration

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds; what takes longer is named while it lasts
WORTH_TELLING = 0.5  # seconds; what took less is not mentioned


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is done inside where it takes long, and afterwards its time."""
    begun = time.monotonic()
    timer = threading.Timer(PATIENCE, log.info, (f"{what} ...",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    seconds = time.monotonic() - begun
    if seconds >= WORTH_TELLING:
        log.info("%s: %s", what, f"{seconds:.1f} s" if seconds < 10 else duration(seconds))

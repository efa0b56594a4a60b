"""Says what a campaign does before its first run, and how long each step took."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from progip.storage.progress import HEARTBEAT_SECONDS, duration

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


class Counted:
    """Says now and then how far a step is that may take long.

    Args:
        what: the step.
        total: images that it goes through; 0 where that is not known before.
    """

    def __init__(self, what: str, total: int = 0) -> None:
        self._what, self._total, self._done = what, total, 0
        self._begun = self._said = time.monotonic()

    def add(self, images: int) -> None:
        """So many more are done."""
        self._done += images
        now = time.monotonic()
        if now - self._said < HEARTBEAT_SECONDS:
            return
        self._said = now
        rate = self._done / (now - self._begun)
        of = f" of {self._total:,}" if self._total else ""
        left = f", {duration((self._total - self._done) / rate)} left" if self._total else ""
        log.info("%s: %s%s images, %.3g a second%s", self._what, f"{self._done:,}", of, rate, left)

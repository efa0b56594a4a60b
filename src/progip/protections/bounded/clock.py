"""How long a search has still to go."""

import time

from progip.storage.progress import duration


class Clock:
    """Started where a search begins, or goes on.

    Args:
        done: steps that an earlier process made.
        total: steps of the whole search, each as long as another.
    """

    def __init__(self, done: int, total: int) -> None:
        self._began, self._first, self._total = time.monotonic(), done, total

    def left(self, done: int) -> str:
        """The time left after so many steps, in words."""
        each = (time.monotonic() - self._began) / (done - self._first)
        return f"{duration(each * (self._total - done))} left"

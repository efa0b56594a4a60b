"""Ctrl-C and SIGTERM while runs are executed: what is executed is stored before the end."""

import os
import signal
import threading
from types import FrameType
from typing import Any

_SAID = (
    b"\nstopping: what is executed is being stored, which takes some seconds; "
    b"once more, and it is lost\n"
)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes a first signal instead of raising; a second one raises at once. A context manager.

    In a thread other than the main one signals are left as they are.

    Attributes:
        number: of the signal that came; None for none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt(number)
        self.number = number
        os.write(2, _SAID)  # print and logging may be in the middle of a line

    def check(self) -> None:
        """End here if a signal came. Raises KeyboardInterrupt with its number."""
        if self.number is not None:
            raise KeyboardInterrupt(self.number)

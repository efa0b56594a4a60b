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

    In a thread other than the main one signals are left as they are, and so are those that a
    launcher handles itself (submitit lets SIGTERM pass and requeues at another signal).

    Attributes:
        number: of the signal that came; None for none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            now = {number: signal.getsignal(number) for number in _SIGNALS}
            self._before = {number: handler for number, handler in now.items() if _usual(handler)}
            for number in self._before:
                signal.signal(number, self._note)
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


def _usual(handler: Any) -> bool:
    """Whether a handler is Python's, the system's or of an entry point, not of a launcher."""
    own = str(getattr(handler, "__module__", "")).startswith("progip.")
    return own or handler in (signal.SIG_DFL, signal.default_int_handler)

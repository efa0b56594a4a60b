"""Files that are there whole or not at all, and what a long search leaves for its continuation."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from progip.errors import ProgipError

log = logging.getLogger(__name__)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path``, then rename: a reader never sees half a file.

    Raises:
        ProgipError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as problem:
        raise ProgipError(f"cannot write {path}: {problem.strerror}") from problem
    finally:
        partial.unlink(missing_ok=True)


class Checkpoint:
    """How far a search is, in one file.

    Args:
        path: named by all that the search depends on; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None where there is nothing, or only a damaged file."""
        if self._path is None or not self._path.exists():
            return None
        try:
            found: dict[str, Any] = torch.load(self._path, weights_only=True)
        except Exception:  # damaged files raise anything: EOFError, RuntimeError, ...
            log.warning("the checkpoint %s is damaged; begun again", self._path)
            return None
        return found

    def save(self, state: dict[str, Any]) -> None:
        """Keep a state of tensors, numbers, texts, lists and dictionaries, in place of the last.

        Raises:
            ProgipError: it cannot be written.
        """
        if self._path is not None:
            write_whole(self._path, lambda path: torch.save(state, path))

    def remove(self) -> None:
        """The search is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

"""Who executes which shard: every process on a cell takes the next free one, under a lock."""

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
from filelock import FileLock, Timeout

from progip.storage import mending, partial_runs, store

log = logging.getLogger(__name__)

_CLAIM = re.compile(r"\.claim-(\d+)-(\d+)")
LONGEST_PAUSE = 2.0  # seconds between two looks at what others hold


class ShardQueue:
    """The missing shards of a folder, shared by every process that works on it.

    A claim is a locked file that names the shard. The system frees the lock when its holder dies,
    however it dies, and the shard goes to whoever looks next. Claims only keep work from being
    done twice: should two processes write one shard all the same (a file system that loses locks),
    they write the same rows, each atomically.

    Args:
        schema: of the shards; damaged files are set aside at once.
        runs: planned runs.
        size: most runs of a new shard.

    Raises:
        OtherConfiguration: a whole shard has other columns.
    """

    def __init__(self, folder: Path, schema: pa.Schema, runs: int, size: int) -> None:
        self.folder, self.runs, self.size = folder, runs, size
        with store.locked(folder):
            self.done = mending.mended_shards(folder, schema)
            mending.remove_leftovers(folder, self.held())
            partial_runs.remove_whole(folder, self.done)

    @property
    def complete(self) -> bool:
        """Whether no run was missing at the last look."""
        return next(store.gaps(self.done, self.runs, self.size), None) is None

    @property
    def runs_done(self) -> int:
        """Runs in shards at the last look, whoever executed them."""
        return sum(shard.stop - shard.start for shard in self.done)

    def claims(
        self, most: Callable[[], int] = lambda: 1, *, shared: bool = False
    ) -> Generator[list[tuple[int, int]], None, None]:
        """Blocks of claimed shards, each (start, stop); the caller writes them.

        Ends when every run is in a shard: waits for those that others hold, and takes over what a
        process that died has left.

        Args:
            most: asked before each block how many shards it may have.
            shared: others are expected, so a block is at most half of what is free: blocks shrink
                towards the end and nobody waits long for the last one (guided self-scheduling,
                Polychronopoulos and Kuck, IEEE Trans. Computers 1987).
        """
        pause, told = 0.05, False
        while True:
            with store.locked(self.folder), ExitStack() as claimed:
                held = self.held()
                self.done = store.named_shards(self.folder)
                taken = [store.Shard(*claim, Path()) for claim in held]
                gaps = store.gaps(sorted([*self.done, *taken]), self.runs, self.size)
                free = list(gaps)
                fair = (len(free) + 1) // 2 if shared or held else len(free)
                free = free[: min(most(), fair)]
                for shard in free:
                    claimed.enter_context(_claim(self.folder, shard))
                release = claimed.pop_all()
            if free:
                with release:
                    yield free
                pause = 0.05
            elif self.complete:
                return
            else:
                if not told:
                    log.info("%s: waiting for %d shards in other processes", self.folder, len(held))
                told, pause = True, min(pause * 1.5, LONGEST_PAUSE)
                time.sleep(pause)

    def remove_partial(self) -> None:
        """Remove kept runs whose shards are whole."""
        with store.locked(self.folder):
            partial_runs.remove_whole(self.folder, store.named_shards(self.folder))

    def held(self) -> set[tuple[int, int]]:
        """The shards that living processes hold; claims of dead ones are removed.

        Call this under the folder's lock.
        """
        held = set()
        for path in self.folder.glob(".claim-*"):
            match = _CLAIM.fullmatch(path.name)
            if match is None:
                continue
            lock = FileLock(path)
            try:
                with lock.acquire(blocking=False):
                    path.unlink(missing_ok=True)
            except Timeout:
                held.add((int(match[1]), int(match[2])))
        return held


@contextmanager
def _claim(folder: Path, shard: tuple[int, int]) -> Iterator[None]:
    lock = FileLock(folder / ".claim-{:d}-{:d}".format(*shard))
    lock.acquire(blocking=False)
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

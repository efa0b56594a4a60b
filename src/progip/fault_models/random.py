"""Counter-based random numbers: run i's numbers are found without drawing those before it."""

import hashlib
from functools import lru_cache

import numpy as np

NOTHING = np.zeros(0, dtype=np.uint64)
WORDS_PER_RUN = 4  # what one step of the Philox counter yields


def uniforms(seed: int, key: str, start: int, stop: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64, shape (stop - start, 4), for runs start..stop-1.

    Row i - start depends on (seed, key, i) alone: Philox4x64-10 (Salmon et al., SC 2011), keyed
    by a 128-bit BLAKE2 hash of seed and key, with run number i as counter.
    """
    generator = np.random.Philox(key=_key(seed, key), counter=start)
    words = generator.random_raw((stop - start) * WORDS_PER_RUN)
    return _unit(words).reshape(-1, WORDS_PER_RUN)


def integers(uniform: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Map uniform numbers in [0, 1) to integers 0..bound-1; bounds far below 2**53."""
    return np.minimum((uniform * bound).astype(np.int64), np.asarray(bound) - 1)


@lru_cache(maxsize=1)
def run_streams(seed: int, key: str) -> "RunStreams":
    """Those of (seed, key), made once for all batches of a cell."""
    return RunStreams(seed, key)


class RunStreams:
    """As many uniform numbers as a run needs, found without drawing those of other runs.

    The counter of Philox4x64-10 holds the run and the number of the stream in its upper words, so
    streams are 2**128 steps apart and never meet each other or ``uniforms``.
    """

    def __init__(self, seed: int, key: str) -> None:
        self._generator = np.random.Philox(key=_key(seed, key))
        self._state = self._generator.state

    def uniforms(self, runs: list[int], stream: int, counts: list[int]) -> np.ndarray:
        """The first numbers in [0, 1), float64, of a stream (1, 2, ...) of some runs, in a row.

        Args:
            counts: of the numbers of each run.
        """
        words = [NOTHING]
        self._state["buffer_pos"] = WORDS_PER_RUN  # nothing buffered
        for run, count in zip(runs, counts, strict=True):
            if count:
                self._state["state"]["counter"][:] = (0, 0, run, stream)
                self._generator.state = self._state
                words.append(self._generator.random_raw(count))
        return _unit(np.concatenate(words))


def _key(seed: int, key: str) -> np.ndarray:
    digest = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype=np.uint64)


def _unit(words: np.ndarray) -> np.ndarray:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

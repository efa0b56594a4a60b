"""Counter-based random numbers: run i's numbers are found without drawing those before it."""

import hashlib

import numpy as np

WORDS_PER_RUN = 4  # what one step of the Philox counter yields


def uniforms(seed: int, key: str, start: int, stop: int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64, shape (stop - start, 4), for runs start..stop-1.

    Row i - start depends on (seed, key, i) alone: Philox4x64-10 (Salmon et al., SC 2011), keyed
    by a 128-bit BLAKE2 hash of seed and key, with run number i as counter.
    """
    digest = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=16).digest()
    generator = np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64), counter=start)
    words = generator.random_raw((stop - start) * WORDS_PER_RUN)
    return (words >> np.uint64(11)).astype(np.float64).reshape(-1, WORDS_PER_RUN) * 2.0**-53


def integers(uniform: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Map uniform numbers in [0, 1) to integers 0..bound-1; bounds far below 2**53."""
    return np.minimum((uniform * bound).astype(np.int64), np.asarray(bound) - 1)

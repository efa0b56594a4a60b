"""What other injectors see of the logits: whether any bit changed, and the largest of them."""

from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch

from progip.probes.base import Observation, Probe
from progip.records import Column


class LogitsDigest(Probe):
    """A digest of all logits, and the place of the largest, a NaN being larger than any number.

    64 bits of each row of logits; two rows with one digest have the same bits.

    Multilinear hashing (Lemire and Kaser, The Computer Journal 57, 2014) with fixed odd
    multipliers: logits that differ in one word never share a digest, others with a probability of
    about 2^-32 at most.
    """

    name: ClassVar[str] = "logits_digest"
    produces: ClassVar[tuple[Column, ...]] = (
        Column("logits_digest", pa.int64(), paired=True),
        Column("argmax", pa.int32(), paired=True),
    )

    def columns(self, seen: Observation, count: int) -> dict[str, np.ndarray]:
        logits = seen.logits[:count]
        words = logits.float().contiguous().view(torch.int32).cpu().numpy()
        factors = np.random.Philox(key=20).random_raw(words.shape[1]) | np.uint64(1)
        digest = (words.view(np.uint32).astype(np.uint64) * factors).sum(1, dtype=np.uint64)
        largest = logits.argmax(1).int().cpu().numpy()
        return {"logits_digest": digest.view(np.int64), "argmax": largest}

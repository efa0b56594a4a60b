"""The reference executor: plain hooks, every run executed whole. The oracle for all others."""

from collections.abc import Generator
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.corrected import CorrectedPipeline
from progip.engine.flipping import BatchFaults
from progip.engine.observe import observed_columns
from progip.engine.pieces import ByPieces, Draw, Piece
from progip.engine.pipeline import Pipeline
from progip.engine.targets import Flip, target_of
from progip.fault_models.base import Hits, Site, digests, named_hits
from progip.probes import Observation
from progip.records import EVERY_PASS


class ReferenceExecutor(ByPieces):
    """Executes planned runs in batches of a fixed shape, other faults in every row.

    Args:
        pipeline: the detector.
        sites: what the plan may name, of this pass.
        fault_pass: ``first_forward``, ``backward`` or ``second_forward``.
        images: (n, channels, height, width) evaluation images, on the device to run on.
        batch_size: rows of every batch; the last one is padded, so that golden and faulty rows
            always use the same kernels.
        draw: gives the hits of planned runs where the plan does not name them, one per row; called
            for one batch at a time, so that many hits need little memory.
        labels: (n,) of the images, for probes that look at them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sites: list[Site],
        fault_pass: str,
        images: Tensor,
        batch_size: int,
        draw: Draw | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.fault_pass = fault_pass
        self.images = images
        self.batch_size = max(batch_size, 2)  # one row alone would use other kernels
        self.sites = sites
        self._target = None if fault_pass == EVERY_PASS else target_of(fault_pass)
        self._draw = draw
        self._labels = labels
        self._modules = {
            name: module
            for name, module in pipeline.network.named_modules()
            if name in {site.layer for site in sites}
        }
        self._faults = BatchFaults(sites, self.batch_size, fault_pass, images.device)
        self._counts: dict[str, int] = {}
        self._current = ""

    def hits(self, plan: pa.Table) -> Hits:
        """What planned runs (``records.PLAN``) do to values."""
        return named_hits(self.sites, plan) if self._draw is None else self._draw(plan)

    def on(self, pipeline: Pipeline, draw: Draw) -> "ReferenceExecutor":
        """The same executor with another pipeline around the same network, and other hits."""
        return ReferenceExecutor(
            pipeline, self.sites, self.fault_pass, self.images, self.batch_size, draw
        )

    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN``) batch by batch, in order.

        Columns are ``value_before``, ``value_after`` and those of ``observed_columns``. With
        ``draw`` the two values are NaN, and the columns of ``fault_models.base.MANY`` are there,
        too; ``Scores`` for a network with a correcting protection.
        """
        with self._hooks():
            for start in range(0, len(plan), self.batch_size):
                part = plan.slice(start, self.batch_size)
                hits = self.hits(part)
                columns = self._run_batch(part["sample_index"].to_numpy(), hits)
                if self._draw is not None:
                    columns["hits"] = np.bincount(hits.row, minlength=len(part)).astype(np.int32)
                    columns["fault_digest"] = digests(hits, len(part))
                yield np.arange(start, start + len(part)), columns

    def execute(self, samples: np.ndarray, faults: BatchFaults) -> None:
        """Run one batch of images, given by number, with other faults than planned ones."""
        planned, self._faults = self._faults, faults
        try:
            with self._hooks():
                self.pipeline(self._padded(samples), self._enter)
        finally:
            self._faults = planned

    def fault_free(self, samples: np.ndarray) -> Observation:
        """What one batch of images, given by number, shows without faults."""
        return self.pipeline(self._padded(samples))

    def observed(self, observation: Observation, samples: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of what images, given by number, showed."""
        labels = None if self._labels is None else self._labels[samples]
        return observed_columns(self.pipeline, observation, len(samples), labels)

    def _padded(self, samples: np.ndarray) -> Tensor:
        """A batch of images, given by number; repeated where there are too few."""
        padded = np.resize(samples, self.batch_size)
        return self.images[torch.from_numpy(padded).to(self.images.device)]

    def _run_batch(self, samples: np.ndarray, hits: Hits) -> dict[str, np.ndarray]:
        self._faults.prepare(hits)
        images = self._padded(samples)
        if isinstance(self.pipeline, CorrectedPipeline):
            self.pipeline.watched = {self.fault_pass}
        observation = self.pipeline(images, self._enter)
        planned = np.bincount(hits.row, minlength=len(samples))
        fired = self._faults.fired(len(samples))
        wrong = np.flatnonzero(fired != planned)
        if len(wrong):
            row = int(wrong[0])
            first = self.sites[hits.site[np.searchsorted(hits.row, row)]]
            raise RuntimeError(
                f"{len(wrong)} runs whose planned faults did not fire exactly once; the first, in "
                f"layer '{first.layer}' call {first.call} of the {self.fault_pass} pass and "
                f"{planned[row] - 1} other places, fired {fired[row]} times"
            )
        result = self.observed(observation, samples)
        if isinstance(self.pipeline, CorrectedPipeline):
            result |= self.pipeline.scores(self.sites, hits, images)._asdict()
            result = {name: values[: len(samples)] for name, values in result.items()}
        if self._draw is not None:
            result["value_before"] = result["value_after"] = np.full(
                len(samples), np.nan, dtype=np.float32
            )
            return result
        result["value_before"], result["value_after"] = self._faults.values()
        return result

    def _hooks(self) -> ExitStack:
        stack = ExitStack()
        if self._target is None:
            return stack
        for name, module in self._modules.items():
            handle = self._target.hook(module, partial(self._at_call, name))
            stack.callback(handle.remove)
        return stack

    def _enter(self, name: str) -> None:
        self._current = name
        self._counts.clear()

    def _at_call(self, name: str) -> Flip | None:
        """What becomes of the tensor of this call of a module; None for nothing."""
        assert self._target is not None
        if self._current != self._target.counted_in(self.fault_pass):
            return None
        key = (name, self._counts.get(name, 0))
        self._counts[name] = key[1] + 1
        return partial(self._faults.flip, key) if key in self._faults else None

"""The reference executor: plain hooks, every run executed whole. The oracle for all others."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.corrected import CorrectedPipeline
from progip.engine.observe import observed_columns
from progip.engine.pipeline import Pipeline
from progip.fault_models.base import Hits, Site, digests, named_hits

#: kinds of modules whose output is never a view of anything
FRESH = ("Conv1d", "Conv2d", "Conv3d", "Linear")
#: the hits of some planned runs (``records.PLAN``)
Draw = Callable[[pa.Table], Hits]


class ReferenceExecutor:
    """Executes planned runs in batches of a fixed shape, other faults in every row.

    Args:
        pipeline: the detector.
        sites: what the plan may name, of this pass.
        fault_pass: ``first_forward``, ``backward`` or ``second_forward``.
        images: (n, channels, height, width) evaluation images, on the device to run on.
        batch_size: rows of every batch; the last one is padded, so that golden and faulty rows
            always use the same kernels.
        draw: gives the hits of planned runs where the plan does not name them, one a row; called
            for one batch at a time, so that many hits need little memory.
    """

    golden_seconds = 0.0  # it computes no golden values

    def __init__(
        self,
        pipeline: Pipeline,
        sites: list[Site],
        fault_pass: str,
        images: Tensor,
        batch_size: int,
        draw: Draw | None = None,
    ) -> None:
        self.pipeline = pipeline
        if isinstance(pipeline, CorrectedPipeline):
            pipeline.watched = fault_pass
        self.fault_pass = fault_pass
        self.images = images
        self.batch_size = max(batch_size, 2)  # one row alone would use other kernels
        self.sites = sites
        self._draw = draw
        self._shapes = {site.key: site.shape for site in sites}
        self._modules = {
            name: module
            for name, module in pipeline.network.named_modules()
            if name in {site.layer for site in sites}
        }
        self._fresh = {s.key for s in sites if s.kind in FRESH and fault_pass != "backward"}
        self._faults: dict[tuple[str, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._counts: dict[str, int] = {}
        self._current = ""
        self._fired = np.zeros(0, dtype=np.int64)
        self._values: list[tuple[np.ndarray, Tensor, Tensor]] = []

    def hits(self, plan: pa.Table) -> Hits:
        """What planned runs (``records.PLAN``) do to values."""
        return named_hits(self.sites, plan) if self._draw is None else self._draw(plan)

    def on(self, pipeline: Pipeline, draw: Draw) -> "ReferenceExecutor":
        """The same executor with another pipeline around the same network, and other hits."""
        return ReferenceExecutor(
            pipeline, self.sites, self.fault_pass, self.images, self.batch_size, draw
        )

    def run(self, plan: pa.Table) -> dict[str, np.ndarray]:
        """Execute every row of a plan (``records.PLAN``).

        Returns:
            one array a column of ``records.OBSERVED`` that execution measures: ``value_before``,
            ``value_after`` and the columns of ``observed_columns``. With ``draw`` the two values
            are NaN, and the columns of ``records.MANY`` are there, too; those of
            ``records.CORRECTION`` for a network with a correcting protection.

        Raises:
            RuntimeError: a planned fault did not fire exactly once.
        """
        parts = []
        with self._hooks():
            for start in range(0, len(plan), self.batch_size):
                part = plan.slice(start, self.batch_size)
                hits = self.hits(part)
                columns = self._run_batch(part["sample_index"].to_numpy(), hits)
                if self._draw is not None:
                    columns["hits"] = np.bincount(hits.row, minlength=len(part)).astype(np.int32)
                    columns["fault_digest"] = digests(hits, len(part))
                parts.append(columns)
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _run_batch(self, samples: np.ndarray, hits: Hits) -> dict[str, np.ndarray]:
        self._faults.clear()
        self._values.clear()
        self._fired = np.zeros(len(samples), dtype=np.int64)
        masks = hits.mask.view(np.int32)
        order = np.argsort(hits.site, kind="stable")
        hit, starts = np.unique(hits.site[order], return_index=True)
        for site, members in zip(hit.tolist(), np.split(order, starts[1:]), strict=False):
            key = self.sites[site].key
            self._faults[key] = (hits.row[members], hits.neuron[members], masks[members])
        padded = np.resize(samples, self.batch_size)
        images = self.images[torch.from_numpy(padded).to(self.images.device)]
        observation = self.pipeline(images, self._enter)
        planned = np.bincount(hits.row, minlength=len(samples))
        wrong = np.flatnonzero(self._fired != planned)
        if len(wrong):
            row = int(wrong[0])
            first = self.sites[hits.site[np.searchsorted(hits.row, row)]]
            raise RuntimeError(
                f"{len(wrong)} runs whose planned faults did not fire exactly once; the first, in "
                f"layer '{first.layer}' call {first.call} of the {self.fault_pass} pass and "
                f"{planned[row] - 1} other places, fired {self._fired[row]} times"
            )
        result = observed_columns(observation, self.pipeline.ranges.sites, len(samples))
        if isinstance(self.pipeline, CorrectedPipeline):
            result |= self.pipeline.scores(self.sites, hits, images)._asdict()
            result = {name: values[: len(samples)] for name, values in result.items()}
        if self._draw is not None:
            result["value_before"] = result["value_after"] = np.full(
                len(samples), np.nan, dtype=np.float32
            )
            return result
        order = np.argsort(np.concatenate([rows for rows, _, _ in self._values]))
        for name, position in (("value_before", 1), ("value_after", 2)):
            values = torch.cat([value[position] for value in self._values])  # type: ignore[misc]
            result[name] = values.view(torch.float32).cpu().numpy()[order]
        return result

    def _hooks(self) -> ExitStack:
        stack = ExitStack()
        for name, module in self._modules.items():
            if self.fault_pass == "backward":
                handle = module.register_forward_pre_hook(
                    lambda m, a, name=name: self._before_call(a, name)
                )
            else:
                # before the hooks of a correcting protection: it sees what the fault did
                handle = module.register_forward_hook(
                    lambda m, a, o, name=name: self._after_call(o, name), prepend=True
                )
            stack.callback(handle.remove)
        return stack

    def _enter(self, name: str) -> None:
        self._current = name
        self._counts.clear()

    def _next_fault(self, name: str) -> tuple[str, int] | None:
        key = (name, self._counts.get(name, 0))
        self._counts[name] = key[1] + 1
        return key if key in self._faults else None

    def _after_call(self, output: Any, name: str) -> Any:
        if self._current != self.fault_pass:
            return None
        key = self._next_fault(name)
        return None if key is None else self._flip(key, output)

    def _before_call(self, args: tuple[Any, ...], name: str) -> Any:
        if self._current != "first_forward":
            return None
        key = self._next_fault(name)
        if key is None:
            return None
        # a view of its own, because the tensor's gradient also sums what other consumers give
        view = args[0].view_as(args[0])
        view.register_hook(lambda gradient: self._flip(key, gradient))
        return (view, *args[1:])

    def _flip(self, key: tuple[str, int], tensor: Tensor) -> Tensor:
        rows, neurons, masks = self._faults[key]
        # what a convolution made without a gradient nobody else reads; other outputs may be views
        alone = key in self._fresh and not tensor.requires_grad
        flipped = tensor if alone else tensor.clone()
        bits = flipped.view(torch.int32)
        if bits.shape[0] != self.batch_size:
            bits = bits.unflatten(0, (self.batch_size, -1))
        where = np.unravel_index(neurons, self._shapes[key])
        index = tuple(torch.from_numpy(i).to(tensor.device) for i in (rows, *where))
        before = bits[index]
        after = before ^ torch.from_numpy(masks).to(tensor.device)
        bits[index] = after
        np.add.at(self._fired, rows, 1)
        if self._draw is None:
            self._values.append((rows, before, after))
        return flipped

"""The reference executor: plain hooks, every run executed whole. The oracle for all others."""

from contextlib import ExitStack
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.observe import observed_columns
from progip.engine.pipeline import Pipeline
from progip.fault_models.base import Site


class ReferenceExecutor:
    """Executes planned runs in batches of a fixed shape, another fault in every row.

    Args:
        pipeline: the detector.
        sites: what the plan may name, of this pass.
        fault_pass: ``first_forward``, ``backward`` or ``second_forward``.
        images: (n, channels, height, width) evaluation images, on the device to run on.
        batch_size: rows of every batch; the last one is padded, so that golden and faulty rows
            always use the same kernels.
    """

    golden_seconds = 0.0  # it computes no golden values

    def __init__(
        self,
        pipeline: Pipeline,
        sites: list[Site],
        fault_pass: str,
        images: Tensor,
        batch_size: int,
    ) -> None:
        self.pipeline = pipeline
        self.fault_pass = fault_pass
        self.images = images
        self.batch_size = max(batch_size, 2)  # one row alone would use other kernels
        self._shapes = {site.key: site.shape for site in sites}
        self._modules = {
            name: module
            for name, module in pipeline.network.named_modules()
            if name in {site.layer for site in sites}
        }
        self._faults: dict[tuple[str, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._counts: dict[str, int] = {}
        self._current = ""
        self._fired = np.zeros(0, dtype=np.int64)
        self._values: list[tuple[np.ndarray, Tensor, Tensor]] = []

    def run(self, plan: pa.Table) -> dict[str, np.ndarray]:
        """Execute every row of a plan (``records.PLAN``).

        Returns:
            one array a column of ``records.OBSERVED`` that execution measures: ``value_before``,
            ``value_after`` and the columns of ``observed_columns``.

        Raises:
            RuntimeError: a planned fault did not fire exactly once.
        """
        columns = {name: plan[name].to_numpy() for name in ("sample_index", "call", "neuron")}
        layers, bits = plan["layer"].to_pylist(), plan["bit"].to_numpy()
        masks = np.where(bits >= 0, np.int64(1) << np.maximum(bits, 0).astype(np.int64), 0)
        masks = masks.astype(np.uint32).view(np.int32)
        parts = []
        with self._hooks():
            for start in range(0, len(plan), self.batch_size):
                rows = slice(start, min(start + self.batch_size, len(plan)))
                parts.append(
                    self._run_batch(
                        columns["sample_index"][rows],
                        layers[rows],
                        columns["call"][rows],
                        columns["neuron"][rows],
                        masks[rows],
                    )
                )
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _run_batch(
        self,
        samples: np.ndarray,
        layers: list[str],
        calls: np.ndarray,
        neurons: np.ndarray,
        masks: np.ndarray,
    ) -> dict[str, np.ndarray]:
        self._faults.clear()
        self._values.clear()
        self._fired = np.zeros(len(samples), dtype=np.int64)
        by_site: dict[tuple[str, int], list[int]] = {}
        for row, key in enumerate(zip(layers, calls.tolist(), strict=True)):
            by_site.setdefault(key, []).append(row)
        for key, members in by_site.items():
            rows = np.array(members)
            self._faults[key] = (rows, neurons[rows], masks[rows])
        padded = np.resize(samples, self.batch_size)
        observation = self.pipeline(
            self.images[torch.from_numpy(padded).to(self.images.device)], self._enter
        )
        wrong = np.flatnonzero(self._fired != 1)
        if len(wrong):
            row = int(wrong[0])
            raise RuntimeError(
                f"{len(wrong)} planned faults did not fire exactly once; the first, in layer "
                f"'{layers[row]}' call {calls[row]} of the {self.fault_pass} pass, fired "
                f"{self._fired[row]} times"
            )
        result = observed_columns(observation, self.pipeline.ranges.sites, len(samples))
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
                handle = module.register_forward_hook(
                    lambda m, a, o, name=name: self._after_call(o, name)
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
        flipped = tensor.clone()
        bits = flipped.view(torch.int32)
        if bits.shape[0] != self.batch_size:
            bits = bits.unflatten(0, (self.batch_size, -1))
        where = np.unravel_index(neurons, self._shapes[key])
        index = tuple(torch.from_numpy(i).to(tensor.device) for i in (rows, *where))
        before = bits[index]
        after = before ^ torch.from_numpy(masks).to(tensor.device)
        bits[index] = after
        self._fired[rows] += 1
        self._values.append((rows, before, after))
        return flipped

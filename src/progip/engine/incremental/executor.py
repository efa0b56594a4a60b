"""The incremental executor: the outcomes of the reference, for a fraction of its work."""

import time
from collections.abc import Generator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.incremental.golden import Golden
from progip.engine.incremental.graph import NotTraceable
from progip.engine.incremental.propagation import Fault, Propagation, golden_values
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.tracing import Traced
from progip.engine.observe import observed_columns
from progip.engine.pieces import ByPieces, Piece
from progip.fault_models.base import Site
from progip.probes import Observation

DEFAULT_MEMORY = 2**31
MOST_RUNS = 2048  # in one propagation; more do not fill batches better


class IncrementalExecutor(ByPieces):
    """Executes planned runs like ``ReferenceExecutor``, with equal results.

    Runs are taken in order of their images, so that the golden values of an image are computed
    once a call of ``run``: give it plans with many runs per image.

    Args:
        traced: the detector, traced once for all cells.
        sites: what the plan may name, of this pass.
        fault_pass: ``first_forward``, ``backward`` or ``second_forward``.
        images: (n, channels, height, width) evaluation images, on the device to run on.
        memory: bytes for golden values and for rows under way.
        labels: (n,) of the images, for probes that look at them.
        windows: compute runs that differ in a window of the image there alone, where that pays.

    Raises:
        NotTraceable: a site is not in the traced graph.
    """

    def __init__(
        self,
        traced: Traced,
        sites: list[Site],
        fault_pass: str,
        images: Tensor,
        memory: int = DEFAULT_MEMORY,
        labels: np.ndarray | None = None,
        windows: bool = True,
    ) -> None:
        self.traced, self.images, self.fault_pass = traced, images, fault_pass
        self._labels = labels
        self._formats = {site.key: site.format for site in sites}
        self._shapes = {site.key: site.shape for site in sites}
        self._nodes: dict[tuple[str, int], int] = {}
        for site in sites:
            where = f"layer '{site.layer}' call {site.call}"
            if site.of_metadata:
                raise NotTraceable("a fault in metadata changes all values of a block")
            node = traced.sites.get((fault_pass, *site.key))
            if node is None:
                raise NotTraceable(f"{where} left no mark in {fault_pass}")
            layout = traced.nodes[node].layout
            if layout is None or layout.axis != site.axis:
                raise NotTraceable(f"in {where} the images of the batch cannot be told apart")
            self._nodes[site.key] = node
        self.schedule = Schedule(traced, set(self._nodes.values()), windows=windows)
        self.runs_per_propagation = fitting_runs(self.schedule, memory)

    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN``) image by image; columns as the reference gives."""
        samples = plan["sample_index"].to_numpy().astype(np.int64)
        distinct, position = np.unique(samples, return_inverse=True)
        order = np.argsort(position, kind="stable")
        batch = self.traced.batch
        self.golden_seconds = 0.0
        limits = np.searchsorted(position[order], np.arange(0, len(distinct) + batch, batch))
        for first, (start, stop) in enumerate(pairwise(limits.tolist())):
            chosen = np.resize(distinct[first * batch : (first + 1) * batch], batch)
            images = self.images[torch.from_numpy(chosen).to(self.images.device)]
            begun = time.monotonic()
            golden = golden_values(self.schedule, images)
            self.golden_seconds += time.monotonic() - begun
            pieces = -(-(stop - start) // self.runs_per_propagation)
            for members in np.array_split(order[start:stop], pieces):
                rows = position[members] - first * batch
                yield members, self._propagate(plan, members, rows, golden)

    def _propagate(
        self, plan: pa.Table, members: np.ndarray, rows: np.ndarray, golden: Golden
    ) -> dict[str, np.ndarray]:
        part = plan.take(pa.array(members))
        layers, calls = part["layer"].to_pylist(), part["call"].to_numpy()
        propagation = Propagation(self.schedule, golden, rows, self._faults(part, layers, calls))
        outputs = propagation.run()
        wrong = np.flatnonzero(propagation.fired != 1)
        if len(wrong):
            row = int(wrong[0])
            raise RuntimeError(
                f"{len(wrong)} planned faults did not fire exactly once; the first, in layer "
                f"'{layers[row]}' call {calls[row]} of the {self.fault_pass} pass, fired "
                f"{propagation.fired[row]} times"
            )
        result = columns_of(self.traced, outputs, part, self._labels)
        result["value_before"], result["value_after"] = propagation.before, propagation.after
        return result

    def _faults(self, part: pa.Table, layers: list[str], calls: np.ndarray) -> dict[int, Fault]:
        neurons, bits = part["neuron"].to_numpy(), part["bit"].to_numpy()
        masks = np.where(bits >= 0, np.int64(1) << np.maximum(bits, 0).astype(np.int64), 0)
        masks = masks.astype(np.uint32).view(np.int32)
        by_site: dict[tuple[str, int], list[int]] = {}
        for row, key in enumerate(zip(layers, calls.tolist(), strict=True)):
            by_site.setdefault(key, []).append(row)
        faults = {}
        for key, members in by_site.items():
            runs = np.array(members)
            where = np.unravel_index(neurons[runs], self._shapes[key])
            faults[self._nodes[key]] = Fault(runs, where, masks[runs], self._formats[key])
        return faults


def fitting_runs(schedule: Schedule, memory: int) -> int:
    """How many runs a propagation may hold, were all of them dirty everywhere.

    Raises:
        NotTraceable: golden values alone take more.
    """
    golden, batch = schedule.golden_bytes(), schedule.traced.batch
    if golden > memory:
        raise NotTraceable(
            f"golden values of {batch} images take {golden >> 20} MiB of the "
            f"{memory >> 20} MiB allowed; lower the batch size or raise the limit"
        )
    runs = (memory - golden) // max(schedule.peak_bytes(), 1)
    return int(min(max(runs, batch), MOST_RUNS))


def columns_of(
    traced: Traced, outputs: list[Tensor], part: pa.Table, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    """What the observed outputs of a propagation say of its runs, in columns.

    Args:
        part: the plan of the runs.
        labels: of all evaluation images, where they are known.
    """
    pipeline, names = traced.pipeline, traced.measured
    first = 3 + len(names)
    second = first + len(pipeline.ranges.sites)
    observation = Observation(
        outputs[0],
        outputs[1],
        outputs[2],
        _columns(outputs[first:second], outputs[0]),
        _columns(outputs[second:], outputs[0]),
        measured=dict(zip(names, outputs[3:first], strict=True)),
    )
    if labels is not None:
        labels = labels[part["sample_index"].to_numpy()]
    return observed_columns(pipeline, observation, len(part), labels)


def _columns(columns: list[Tensor], like: Tensor) -> Tensor:
    if not columns:
        return like.new_full((len(like), 0), 0.0, dtype=torch.float32)
    return torch.stack(columns, 1)

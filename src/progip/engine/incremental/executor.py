"""The incremental executor: the outcomes of the reference, for a fraction of its work."""

from collections.abc import Generator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.engine.corrected import CorrectedPipeline, Places
from progip.engine.incremental.golden import Golden
from progip.engine.incremental.graph import NotTraceable
from progip.engine.incremental.injection import Fault
from progip.engine.incremental.looks import Look
from progip.engine.incremental.propagation import Propagation, golden_values
from progip.engine.incremental.schedule import Schedule
from progip.engine.incremental.tracing import Traced
from progip.engine.incremental.transfers import Reads, Stopwatch, upload
from progip.engine.observe import observed_columns
from progip.engine.pieces import ByPieces, Draw, Piece
from progip.engine.roulette import Game, Roulette
from progip.fault_models.base import Hits, Site, digests, named_hits
from progip.models.calls import Call
from progip.probes import Observation

DEFAULT_MEMORY = 2**31
MOST_HITS = 2**21  # in one propagation, about
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
        roulette: ends runs whose change is tiny, with known probability; columns of such runs are
            those of their fault-free execution, and those of ``records.ROULETTE`` are there, too.
        draw: gives the hits of planned runs where the plan does not name them; columns are then
            those of the reference with ``draw``.
        late: read comparisons with golden a step later; None: on a GPU, where it saves waiting.

    Attributes:
        reads: what was read back from the device while runs were under way.

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
        roulette: Roulette | None = None,
        draw: Draw | None = None,
        late: bool | None = None,
    ) -> None:
        self.traced, self.images, self.fault_pass = traced, images, fault_pass
        self._labels, self._roulette = labels, roulette
        self._sites, self._draw = sites, draw
        self.reads = Reads()
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
        windows = windows and draw is None
        self._corrections = _corrections(traced, fault_pass)
        self.schedule = Schedule(
            traced,
            set(self._nodes.values()),
            looked=self._corrections.values(),
            windows=windows,
            late=late,
        )
        self.runs_per_propagation = fitting_runs(self.schedule, memory)

    def pieces(self, plan: pa.Table) -> Generator[Piece, None, None]:
        """Execute a plan (``records.PLAN``) image by image; columns as the reference gives."""
        samples = plan["sample_index"].to_numpy().astype(np.int64)
        distinct, position = np.unique(samples, return_inverse=True)
        order = np.argsort(position, kind="stable")
        batch = self.traced.batch
        self.golden_seconds, watch = 0.0, Stopwatch(self.images.device)
        limits = np.searchsorted(position[order], np.arange(0, len(distinct) + batch, batch))
        for first, (start, stop) in enumerate(pairwise(limits.tolist())):
            chosen = np.resize(distinct[first * batch : (first + 1) * batch], batch)
            images = self.images[upload(chosen, self.images.device)]
            watch.start()
            golden = golden_values(self.schedule, images)
            watch.stop()
            for members in self._divided(plan, order[start:stop]):
                rows = position[members] - first * batch
                piece = self._propagate(plan, members, rows, golden)
                self.golden_seconds = watch.seconds  # the piece was waited for
                yield members, piece
            golden.forget()  # before the next ones are made

    def _divided(self, plan: pa.Table, members: np.ndarray) -> list[np.ndarray]:
        """Runs of one golden batch in parts that fit into memory, with their hits."""
        most = self.runs_per_propagation
        if self._draw is not None:
            few = plan.take(pa.array(members[: self.traced.batch]))
            each = len(self._draw(few).row) / len(few)
            most = max(self.traced.batch, min(most, int(MOST_HITS / max(each, 1))))
        return np.array_split(members, -(-len(members) // most))

    def _propagate(
        self, plan: pa.Table, members: np.ndarray, rows: np.ndarray, golden: Golden
    ) -> dict[str, np.ndarray]:
        part = plan.take(pa.array(members))
        many = self._draw is not None
        hits = self._draw(part) if self._draw is not None else named_hits(self._sites, part)
        of_runs = (part[name].to_numpy() for name in ("run_id", "sample_index"))
        game = Game(self._roulette, *of_runs) if self._roulette else None
        pipeline, places, looks = self.traced.pipeline, None, {}
        if isinstance(pipeline, CorrectedPipeline):
            calls = list(self._corrections)
            places = pipeline.places(self._sites, hits, calls, self.images[:1])
            looks = self._looks(hits, places)
        propagation = Propagation(
            self.schedule, golden, rows, self._faults(hits), game, many, self.reads, looks
        )
        outputs = propagation.run()
        planned = np.bincount(hits.row, minlength=len(part))
        fired = propagation.injection.fired
        wrong = np.flatnonzero(fired != planned)
        if len(wrong):
            row = int(wrong[0])
            first = self._sites[hits.site[np.searchsorted(hits.row, row)]]
            raise RuntimeError(
                f"{len(wrong)} planned faults did not fire exactly once; the first, in layer "
                f"'{first.layer}' call {first.call} of the {self.fault_pass} pass and "
                f"{planned[row] - 1} other places, fired {fired[row]} times"
            )
        result = columns_of(self.traced, outputs, part, self._labels)
        result["value_before"], result["value_after"] = propagation.injection.values()
        if places is not None:
            corrected = self._looked(places, propagation.looked)
            result |= places.scores(hits, corrected, len(part))._asdict()
        if many:
            result["hits"] = planned.astype(np.int32)
            result["fault_digest"] = digests(hits, len(part))
        return result if game is None else {**result, **game.columns()}

    def _faults(self, hits: Hits) -> dict[int, Fault]:
        order = np.argsort(hits.site, kind="stable")
        numbers, starts = np.unique(hits.site[order], return_index=True)
        faults = {}
        for number, chosen in zip(
            numbers.tolist(), np.split(order, starts[1:]) if len(order) else [], strict=True
        ):
            site = self._sites[number]
            where = np.unravel_index(hits.neuron[chosen], site.shape)
            clears = None if hits.clear is None else hits.clear[chosen].view(np.int32)
            faults[self._nodes[site.key]] = Fault(
                hits.row[chosen], where, hits.mask[chosen].view(np.int32), site.format, clears
            )
        return faults

    def _looks(self, hits: Hits, places: Places) -> dict[int, Look]:
        """The places as values of nodes, in the order of places within each."""
        looks = {}
        for number in np.unique(places.call).tolist():
            node = self._corrections[places.calls[number]]
            chosen = places.call == number
            layout = self.schedule.layouts[node]
            shape = layout.axis.row_shape(layout.shape)
            where = np.unravel_index(places.position[chosen], shape)
            looks[node] = Look(hits.row[places.hit[chosen]], where)
        return looks

    def _looked(self, places: Places, found: dict[int, np.ndarray]) -> np.ndarray:
        """(places,) what was found, from what was found of each node."""
        result = np.zeros(len(places.hit), dtype=bool)
        for number in np.unique(places.call).tolist():
            result[places.call == number] = found[self._corrections[places.calls[number]]]
        return result


def _corrections(traced: Traced, fault_pass: str) -> dict[Call, int]:
    """By corrected call of a pass, the node that tells which values are corrected."""
    found = {}
    for (name, call), node in traced.corrections.items():
        if name == fault_pass:
            if traced.nodes[node].layout is None:
                raise NotTraceable(f"what is corrected in layer '{call[0]}' is the same for all")
            found[call] = node
    return found


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
    third = second + len(pipeline.ranges.sites)
    corrections = outputs[third:]  # flagged and corrected
    observation = Observation(
        outputs[0],
        outputs[1],
        outputs[2],
        _columns(outputs[first:second], outputs[0]),
        _columns(outputs[second:third], outputs[0]),
        flagged=corrections[0] if corrections else None,
        corrected=corrections[1] if corrections else None,
        measured=dict(zip(names, outputs[3:first], strict=True)),
    )
    if labels is not None:
        labels = labels[part["sample_index"].to_numpy()]
    return observed_columns(pipeline, observation, len(part), labels)


def _columns(columns: list[Tensor], like: Tensor) -> Tensor:
    if not columns:
        return like.new_full((len(like), 0), 0.0, dtype=torch.float32)
    return torch.stack(columns, 1)

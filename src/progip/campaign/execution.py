"""Chooses the executor of a cell, and checks the incremental one against the reference."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pyarrow as pa

from progip import records
from progip.campaign.columns import execution_schema
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject
from progip.engine.incremental import (
    IncrementalExecutor,
    IncrementalRounds,
    NotTraceable,
    Traced,
)
from progip.engine.reference import ReferenceExecutor
from progip.engine.rounds import RoundExecutor
from progip.errors import ProgipError
from progip.fault_models.base import BITS, MAP, NO_BIT, SUPER, Hits, Site
from progip.models.calls import Call

log = logging.getLogger(__name__)

BLOCK_SECONDS = 120.0  # of work at once: what is lost when a process is killed
GOLDEN_SHARE = 0.1  # more, if golden values take a larger share of the block than this,
LONGEST_BLOCK = 600.0  # up to this
MOST_RUNS = 200_000  # of a block; each takes about 1 KiB until it is written


class Executor(Protocol):
    """Executes planned runs (``records.PLAN``) and returns the columns it measured."""

    golden_seconds: float  # spent on golden values in the last call

    def run(self, plan: pa.Table) -> dict[str, np.ndarray]: ...


def reference_executor(
    settings: CellSettings, subject: Subject, sites: list[Site]
) -> ReferenceExecutor:
    """The reference executor of a cell, which draws the hits that the plan does not name."""
    model = settings.fault_model

    def draw(plan: pa.Table) -> Hits:
        return model.hits(sites, plan, settings.seed, settings.fault_key)

    if model.scope == "round":
        return RoundExecutor(
            subject.pipeline,
            sites,
            subject.tested.images[settings.population],
            subject.tested.batch_size,
            draw,
            subject.tested.labels[settings.population],
            named=not model.many,
        )
    return ReferenceExecutor(
        subject.pipeline,
        sites,
        settings.fault_pass,
        subject.tested.images[settings.population],
        subject.tested.batch_size,
        draw if model.many else None,
        subject.tested.labels[settings.population],
    )


def _incremental(
    settings: CellSettings, subject: Subject, traced: Traced, sites: list[Site]
) -> Executor:
    images = subject.tested.images[settings.population]
    memory = settings.subject.golden_memory
    labels = subject.tested.labels[settings.population]
    model = settings.fault_model
    if model.scope == "row":
        return IncrementalExecutor(traced, sites, settings.fault_pass, images, memory, labels)

    def draw(maps: pa.Table) -> Hits:
        return model.hits(sites, maps, settings.seed, settings.fault_key)

    return IncrementalRounds(traced, sites, images, draw, memory, labels)


class Execution:
    """Executes the planned runs of one cell.

    Faults that hit any number of neurons change nearly everything, and of corrections more is to be
    observed than the incremental executor does: such runs are executed whole. Else, with the
    incremental executor, a share of the runs (``settings.self_check``) is executed by the
    reference, too, and must agree in every column, bit for bit.
    """

    def __init__(self, settings: CellSettings, subject: Subject, sites: list[Site]) -> None:
        self._golden = subject.golden.evaluation(settings.population)
        self._super_layers = lambda: subject.super_layers
        self._schema = execution_schema(settings)
        self._sites = sites
        self._reference = reference_executor(settings, subject, sites)
        self._executor: Executor = self._reference
        self._expect_golden(settings, subject)
        self._every = round(1 / settings.self_check) if settings.self_check > 0 else 0
        whole = settings.fault_model.many or settings.subject.correction is not None
        if settings.executor == "incremental" and not whole:
            try:
                traced = subject.traced
                if isinstance(traced, NotTraceable):
                    raise traced
                self._executor = _incremental(settings, subject, traced, sites)
            except NotTraceable as reason:
                log.warning("executed by the reference, which is slower: %s", reason)

    def _expect_golden(self, settings: CellSettings, subject: Subject) -> None:
        """Executed without faults among other images, an image must give its golden results."""
        order = np.random.default_rng(0).permutation(len(self._golden))
        samples = order[: subject.tested.batch_size]
        observation = self._reference.fault_free(samples)
        found = self._reference.observed(observation, samples)
        for name in found:
            golden = records.values(self._golden[name])[samples]
            same = records.same_values(golden, found[name])
            if not same.all():
                row = int(np.flatnonzero(~same)[0])
                raise ProgipError(
                    f"model '{settings.names['model']}' under ood_method "
                    f"'{settings.names['ood_method']}': executed again without faults, among other "
                    f"images, {int((~same).sum())} of {len(samples)} {settings.population} images "
                    f"give another {name} (image {samples[row]}: {found[name][row]!r}, golden "
                    f"{golden[row]!r}). Nothing that a fault does could be told from this: the "
                    "method or the network draws random numbers or mixes the images of a batch "
                    "after its first forward pass, or this machine's kernels do not recur "
                    "(another batch_size or threads=1 may help)"
                )

    def run(self, plan: pa.Table) -> pa.Table:
        """Execute every row of a plan: a table of ``columns.execution_schema``.

        Raises:
            RuntimeError: a fault did not fire exactly once, or the executors disagree on a run.
        """
        observed = self._executor.run(plan)
        if self._executor is not self._reference and self._every:
            self._check(plan, observed)
        return observed_table(
            plan, self._golden, observed, self._schema, self._super_layers, sites=self._sites
        )

    @property
    def golden_seconds(self) -> float:
        """Time that golden values took in the last block."""
        return self._executor.golden_seconds

    def _check(self, plan: pa.Table, observed: dict[str, np.ndarray]) -> None:
        chosen = np.flatnonzero(plan["run_id"].to_numpy() % self._every == 0)
        if not len(chosen):
            return
        expected = self._reference.run(plan.take(pa.array(chosen)))
        for name, values in expected.items():
            found = observed[name][chosen]
            same = records.same_values(found, values)
            if not same.all():
                row = int(np.flatnonzero(~same)[0])
                what = plan.slice(int(chosen[row]), 1).to_pylist()[0]
                raise RuntimeError(
                    f"self-check failed: the incremental executor gave {name}={found[row]!r}, the "
                    f"reference {values[row]!r}, for {what}. Nothing of this block was written; "
                    "run with executor=reference and report this"
                )


def observed_table(
    plan: pa.Table,
    golden: pa.Table,
    observed: dict[str, np.ndarray],
    schema: pa.Schema,
    super_layers: Callable[[], Collection[Call]] = frozenset,
    *,
    sites: list[Site],
) -> pa.Table:
    """Plan, golden and faulty columns of the same runs as one table of ``execution_schema``.

    Args:
        sites: that the plan was drawn for.
        super_layers: gives those of the network, where a column says it.
    """
    samples = plan["sample_index"].to_numpy()
    columns: dict[str, object] = {name: plan[name] for name in plan.column_names}
    columns["label"] = golden["label"].to_numpy()[samples]
    bits = np.arange(NO_BIT, BITS)
    means = np.array([sites[0].field(bit) if sites else "" for bit in bits.tolist()], dtype=object)
    columns["field"] = means[plan["bit"].to_numpy() - NO_BIT]
    for name in schema.names:
        which, _, own = name.partition("_")
        if name in columns:
            continue
        if name == SUPER[0].name:
            calls = plan["call"].to_pylist()
            if MAP[1].name in plan.column_names:  # of a parameter, which all calls use
                calls = [0] * len(calls)
            marked = super_layers()
            keys = zip(plan["layer"].to_pylist(), calls, strict=True)
            columns[name] = np.array([key in marked for key in keys], dtype=bool)
            continue
        if which == "golden":
            columns[name] = records.values(golden[own])[samples]
        else:
            columns[name] = observed[own if which == "faulty" else name]
    return records.table(columns, schema)


class Pace:
    """How many shards to execute at once, by the rates measured so far.

    The incremental executor computes golden values once per image and block, so it likes large
    blocks; a killed process loses the block it was at. A block lasts about ``BLOCK_SECONDS``, and
    up to ``LONGEST_BLOCK`` where golden values would take more than ``GOLDEN_SHARE`` of it. The
    first one is one shard where no rate is known.

    Args:
        shard_size: runs in one shard.
        seconds_per_run: known from an earlier execution.
    """

    def __init__(self, shard_size: int, seconds_per_run: float | None = None) -> None:
        self.shard_size = shard_size
        self.rate = 1 / seconds_per_run if seconds_per_run else 0.0  # runs per second
        self.golden = 0.0  # seconds for the golden values of a block

    def shards(self) -> int:
        """Shards of the next block."""
        seconds = min(max(BLOCK_SECONDS, self.golden / GOLDEN_SHARE), LONGEST_BLOCK)
        runs = min(self.rate * seconds, MOST_RUNS)
        return max(1, int(runs / self.shard_size))

    @contextmanager
    def measured(self, runs: int, execution: Execution) -> Iterator[None]:
        """Measure the block executed inside."""
        begun = time.monotonic()
        yield
        self.golden = execution.golden_seconds
        self.rate = runs / max(time.monotonic() - begun - self.golden, 1e-9)

"""Chooses the executor of a cell, and checks the incremental one against the reference."""

import logging
from collections.abc import Callable, Collection
from contextlib import closing

import numpy as np
import pyarrow as pa

from progip import records
from progip.campaign.columns import execution_schema
from progip.campaign.first_hits import saved_share
from progip.campaign.settings import CellSettings
from progip.campaign.steps import step
from progip.campaign.subject import Subject
from progip.engine.incremental import (
    IncrementalExecutor,
    IncrementalRounds,
    NotTraceable,
    Traced,
)
from progip.engine.pieces import ByPieces, joined
from progip.engine.reference import ReferenceExecutor
from progip.engine.roulette import Roulette, untouched
from progip.engine.rounds import RoundExecutor
from progip.errors import ProgipError
from progip.fault_models.base import BITS, MAP, NO_BIT, SUPER, Hits, Site
from progip.models.calls import Call

#: runs by which is estimated how much lies before first hits, and the least share that pays
TRIED, LEAST_SAVED = 128, 0.05

log = logging.getLogger(__name__)


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
    settings: CellSettings,
    subject: Subject,
    traced: Traced,
    sites: list[Site],
    roulette: Roulette | None,
) -> ByPieces:
    images = subject.tested.images[settings.population]
    memory = settings.subject.memory
    labels = subject.tested.labels[settings.population]
    model = settings.fault_model

    def draw(plan: pa.Table) -> Hits:
        return model.hits(sites, plan, settings.seed, settings.fault_key)

    if model.scope == "row":
        return IncrementalExecutor(
            traced,
            sites,
            settings.fault_pass,
            images,
            memory,
            labels,
            roulette=roulette,
            draw=draw if model.many else None,
        )
    return IncrementalRounds(traced, sites, images, draw, memory, labels)


class Execution:
    """Executes the planned runs of one cell.

    Where faults hit so many neurons that little lies before the first, nearly everything changes:
    such runs are executed whole. Else, with the incremental executor, a share of the runs
    (``settings.self_check``) is executed by the reference, too, and must agree in every column, bit
    for bit.

    Args:
        roulette: ends some of the runs early; None: none.
    """

    def __init__(
        self,
        settings: CellSettings,
        subject: Subject,
        sites: list[Site],
        roulette: Roulette | None = None,
    ) -> None:
        self._golden = subject.golden.evaluation(settings.population)
        self._super_layers = lambda: subject.super_layers
        self.schema = execution_schema(settings)
        self._sites = sites
        self._reference = reference_executor(settings, subject, sites)
        self._executor: ByPieces = self._reference
        with step("a batch without faults, to be golden again"):
            self._expect_golden(settings, subject)
        self._every = round(1 / settings.self_check) if settings.self_check > 0 else 0
        if settings.executor == "incremental" and self._saves(settings, subject):
            try:
                traced = subject.traced
                if isinstance(traced, NotTraceable):
                    raise traced
                with step("working out what each fault can change"):
                    self._executor = _incremental(settings, subject, traced, sites, roulette)
            except NotTraceable as reason:
                log.warning("executed by the reference, which is slower: %s", reason)
                if roulette is not None:
                    log.warning("sampling.roulette: the reference ends no run early")

    def _saves(self, settings: CellSettings, subject: Subject) -> bool:
        """Whether runs have so much before their first hit that it pays to start there."""
        model, sites = settings.fault_model, self._sites
        if not model.many or model.scope == "round":
            return not model.many
        key = settings.seed, settings.fault_key
        plan = model.plan(sites, len(self._golden), *key, 0, TRIED)
        hits = model.hits(sites, plan, *key)
        passes = subject.tested.method.passes
        return saved_share(hits, TRIED, sites, settings.fault_pass, passes) >= LEAST_SAVED

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

    def run(self, plan: pa.Table, go_on: Callable[[int], bool] = lambda _: True) -> pa.Table:
        """Execute the rows of a plan: a table of ``columns.execution_schema``.

        Args:
            go_on: told the number of runs of each piece that is executed; where it says no, the
                table has the runs executed so far, in order of runs.

        Raises:
            RuntimeError: a fault did not fire exactly once, or the executors disagree on a run.
        """
        pieces = []
        with closing(self._executor.pieces(plan)) as found:
            for piece in found:
                pieces.append(piece)
                if not go_on(len(piece[0])):
                    break
        positions, observed = joined(pieces)
        if records.ROULETTE.names[0] in self.schema.names and self._executor is self._reference:
            observed |= untouched(len(positions))
        if len(positions) < len(plan):
            plan = plan.take(pa.array(positions))
        if self._executor is not self._reference and self._every:
            self._check(plan, observed)
        return observed_table(
            plan, self._golden, observed, self.schema, self._super_layers, sites=self._sites
        )

    @property
    def golden_seconds(self) -> float:
        """Time that golden values took in the last call of ``run``."""
        return self._executor.golden_seconds

    def _check(self, plan: pa.Table, observed: dict[str, np.ndarray]) -> None:
        chosen = plan["run_id"].to_numpy() % self._every == 0
        if "roulette" in observed:  # of ended runs nothing is known that could be compared
            chosen &= observed["roulette"] > 0
        chosen = np.flatnonzero(chosen)
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
                    f"reference {values[row]!r}, for {what}. None of these runs was written; "
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

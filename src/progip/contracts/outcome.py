"""The contract of an outcome: a pure function of what was observed of each run."""

import numpy as np

from progip.contracts.broken import Owner
from progip.outcomes.base import Context, Outcome, Runs
from progip.records import NO_CLASS

COUNT = 64


def check_outcome(outcome: Outcome, classes: int = 10) -> None:
    """Check all that campaigns and reports rely on.

    ``judge`` gives the columns that it declares, with their types; each run is judged alone; its
    input stays as it is; events and measures name columns of rows; no event is set without its
    base; events declared disjoint are; logits without a class and scores that are not finite are
    judged, too.

    Args:
        outcome: with the options to check.
        classes: of the network; an outcome may fit some numbers alone.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(outcome)
    owner.check_options()
    outcome.check(classes)
    declared, columns = outcome.declared, [field.name for field in outcome.columns]
    owner.must(bool(outcome.needs), "needs no column, so it cannot depend on the run")
    owner.must(bool(declared.failures), "declares no event that is a failure")
    owner.must(declared.name == outcome.name, f"declares itself as '{declared.name}'")
    names = [event.name for event in declared.events]
    owner.must(len(set(names)) == len(names), "declares two events of one name")
    paired = [f"{which}_{name}" for name in outcome.needs for which in ("golden", "faulty")]
    held = {*columns, *outcome.needs, *paired, ""}
    for name in (declared.base, *(n for e in declared.events for n in (e.flag, e.base))):
        owner.must(name in {*columns, ""}, f"declares the column {name}, which it does not make")
    for measure in declared.measures:
        for name in (measure.column, measure.minus, measure.base):
            owner.must(name in held, f"measures {name}, which it neither makes nor needs")
    for population in outcome.populations:
        _check_population(owner, outcome, population, classes)


def _check_population(owner: Owner, outcome: Outcome, population: str, classes: int) -> None:
    runs, context = _runs(outcome, population, classes), Context(population, 0.5)
    before = {name: values.copy() for name, values in runs.items()}
    found = outcome.judge(runs, context)
    same = all(np.array_equal(before[n], v, equal_nan=v.dtype != bool) for n, v in runs.items())
    owner.must(same, "changes the runs it judges")
    owner.must(
        list(found) == [field.name for field in outcome.columns],
        f"must give {', '.join(field.name for field in outcome.columns)}, gave {', '.join(found)}",
    )
    for field in outcome.columns:
        values = found[field.name]
        wanted = np.dtype(field.type.to_pandas_dtype())
        right = isinstance(values, np.ndarray) and values.shape == (COUNT,)
        owner.must(right and values.dtype == wanted, f"must give {field.name} (n,) {wanted}")
    turned = np.arange(COUNT)[::-1]
    other = outcome.judge({name: values[turned] for name, values in runs.items()}, context)
    for name, values in found.items():
        alike = np.array_equal(values[turned], other[name], equal_nan=values.dtype != bool)
        owner.must(alike, f"judges {name} of a run by the runs beside it, or by its place")
    declared = outcome.declared
    for event in declared.events:
        if event.base:
            lost = found[event.flag] & ~found[event.base]
            owner.must(not lost.any(), f"sets {event.flag} without {event.base}")
    if declared.disjoint:
        several = sum(found[event.flag].astype(int) for event in declared.events)
        owner.must(bool(np.all(several <= 1)), "sets two events that it declares disjoint")


def _runs(outcome: Outcome, population: str, classes: int) -> Runs:
    """Plausible runs of a population; some without a class, some not finite."""
    draw = np.random.default_rng(3)
    label = draw.integers(0, classes, COUNT) if population == "id" else np.full(COUNT, -1)
    runs: dict[str, np.ndarray] = {"label": label.astype(np.int32)}
    for name in outcome.needs:
        for which in ("golden", "faulty"):
            values: np.ndarray
            if name == "class":
                values = draw.integers(0, classes, COUNT).astype(np.int32)
                if which == "faulty":
                    values[:5] = NO_CLASS
            elif name == "top_five":
                values = draw.integers(0, classes, (COUNT, 5)).astype(np.int32)
            elif name.startswith("nonfinite_"):
                values = draw.random(COUNT) < 0.2
            else:
                values = draw.normal(0.5, 0.3, COUNT)
                if which == "faulty":
                    values[3:8] = (np.nan, np.inf, -np.inf, 0.0, 1e30)
            runs |= {f"{which}_{name}": values, name: values}
    return runs

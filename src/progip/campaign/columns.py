"""The columns of one cell's tables, composed of what each component declares that it produces."""

import pyarrow as pa

from progip import records
from progip.campaign.settings import CellSettings
from progip.engine.corrected import SCORES
from progip.fault_models.base import MAP, FaultModel
from progip.probes import BASE, Probe
from progip.probes.corrections import CorrectionProbe
from progip.records import Part


def of_probe(probe: type[Probe] | Probe, wide: bool = True) -> Part:
    """What a probe adds to runs; without its wide columns to result rows."""
    produced = [column for column in probe.produces if wide or not column.wide]
    return Part(f"probe {probe.name}", records.run_fields(produced))


def execution_parts(settings: CellSettings, wide: bool = True) -> tuple[list[Part], list[Part]]:
    """What every execution holds, and what probes, fault model and correction add to it."""
    base = [
        Part("plan", tuple(records.PLAN)),
        Part("execution", tuple(records.FAULT)),
        *map(of_probe, BASE),
    ]
    more = [of_probe(probe, wide) for probe in settings.subject.probes]
    model: FaultModel = settings.fault_model
    if model.columns:
        more.append(Part(f"fault model {model.name}", model.columns))
    correction = settings.subject.correction
    if correction is not None:
        more.append(of_probe(CorrectionProbe))
        if settings.fault_model.scope == "row":  # which values were hit, and corrected
            more.append(Part(f"protection {correction.name}", tuple(SCORES)))
    return base, more


def result_parts(settings: CellSettings) -> list[Part]:
    """Of result rows."""
    base, more = execution_parts(settings, wide=False)
    return [
        Part("cell", tuple(records.CELL)),
        *base,
        Part(f"outcome {settings.outcome.name}", settings.outcome.columns),
        Part(
            f"protection {settings.protection.name}",
            (*records.ALARM, *settings.protection.measures),
        ),
        *more,
    ]


def planned_columns(settings: CellSettings) -> list[str]:
    """Of a plan: what a run is executed from."""
    maps = [field.name for field in MAP] if settings.fault_model.scope == "round" else []
    return [*records.PLAN.names, *maps]


def execution_schema(settings: CellSettings) -> pa.Schema:
    """Of executed runs, which protections that only watch share."""
    base, more = execution_parts(settings)
    return records.schema_of([*base, *more])


def result_schema(settings: CellSettings) -> pa.Schema:
    """Of result rows: the contract with every reader."""
    return records.schema_of(result_parts(settings))

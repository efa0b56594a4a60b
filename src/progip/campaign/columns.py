"""The columns of one cell's tables, composed of what each component declares that it produces.

Files of rows have those of every component of progip, so that all files of a campaign have one
schema whatever its cells do; what a cell does not produce is null in its files (``stored``).
"""

from functools import cache

import pyarrow as pa

from progip import records
from progip.campaign.settings import CellSettings
from progip.engine.corrected import SCORES
from progip.fault_models.base import MANY, MAP, SUPER, FaultModel
from progip.outcomes.base import Outcome
from progip.outcomes.criticality import Criticality
from progip.outcomes.loss import DeltaLoss
from progip.outcomes.ood_verdict import OODVerdict
from progip.outcomes.scm import SCM
from progip.outcomes.sdc import SDC
from progip.probes import BASE, Probe, optional_probes
from progip.probes.corrections import CorrectionProbe
from progip.records import Part

#: with every column that they can produce
OUTCOMES: tuple[Outcome, ...] = (
    SDC(name="sdc", top_five=True, confidence=[10, 20]),
    SCM(name="scm"),
    DeltaLoss(name="loss"),
    Criticality(name="criticality"),
)


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
    if settings.sampling.roulette < 1:
        more.append(Part(f"sampling {settings.sampling.name}", tuple(records.ROULETTE)))
    correction = settings.subject.correction
    if correction is not None:
        more.append(of_probe(CorrectionProbe))
        if settings.fault_model.scope == "row":  # which values were hit, and corrected
            more.append(Part(f"protection {correction.name}", tuple(SCORES)))
    return base, more


def result_parts(settings: CellSettings) -> list[Part]:
    """Of result rows."""
    base, more = execution_parts(settings, wide=False)
    clean = [records.CLEAN_ALARM] if settings.sampling.roulette < 1 else []
    return [
        Part("cell", tuple(records.CELL)),
        *base,
        Part(f"outcome {settings.outcome.name}", settings.outcome.columns),
        Part(
            f"protection {settings.protection.name}",
            (*records.ALARM, *settings.protection.measures, *clean),
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
    """Of result rows: what this cell produces; the contract with every reader."""
    return records.schema_of(result_parts(settings))


@cache
def every_column() -> pa.Schema:
    """Those of files of rows: of every component of progip, in one order for all cells."""
    fields = [
        *records.CELL,
        *records.PLAN,
        *records.FAULT,
        *(field for probe in BASE for field in of_probe(probe).fields),
        *OODVerdict(name="ood_verdict").columns,
        *records.ALARM,
        *(field for outcome in OUTCOMES for field in outcome.columns),
        *MANY,
        *MAP,
        *SUPER,
        *records.ROULETTE,
        records.CLEAN_ALARM,
        *of_probe(CorrectionProbe).fields,
        *SCORES,
        *(
            field
            for probe in optional_probes().values()
            for field in of_probe(probe, wide=False).fields
        ),
    ]
    return pa.schema(dict.fromkeys(fields))


def stored(rows: pa.Table) -> pa.Table:
    """Rows as files hold them: in the columns of ``every_column``, then those of users' components.

    Columns that the cell does not produce are null.
    """
    known = every_column()
    more = [field for field in rows.schema if field.name not in known.names]
    return pa.table(
        {
            field.name: rows[field.name]
            if field.name in rows.schema.names
            else pa.nulls(len(rows), field.type)
            for field in (*known, *more)
        }
    )

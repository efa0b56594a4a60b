"""What an outcome measures of runs: means with their variance and interval, by pass."""

from functools import reduce
from operator import add

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import ALL, in_order
from progip.analysis.manifests import IDENTITY
from progip.outcomes.declared import Measure
from progip.report import formats
from progip.report.layout import Block, Section, Value, setting_title

SCOPE = (*SETTING, "model")
HEADERS = ["pass", "measure", "mean", "95 % interval", "variance of the mean", "n", "not finite, %"]
READING = (
    "Means over the runs named in each line, before any protection; runs whose value is not finite "
    "are counted apart and are in no mean. Intervals are Student's."
)


def measures_section(campaign: Campaign) -> Section | None:
    """The means of every measure of the outcome; None where it has none."""
    measures = campaign.declared.measures
    if not measures:
        return None
    cells = campaign.cells
    cells = cells[(cells["done"] > 0) & (cells["correction"] == "")]
    same = [name for name in (*IDENTITY, "seed") if name != "protection"]
    cells = cells.sort_values("done", ascending=False, kind="stable").drop_duplicates(same)
    both = pd.concat([cells, cells.assign(fault_pass=ALL)], ignore_index=True)
    rows = [
        {**dict(zip(SCOPE, scope, strict=True)), "fault_pass": name, **_line(part, measure)}
        for scope, group in by_group(both, SCOPE)
        for name in in_order("fault_pass", group["fault_pass"].unique())
        for part in [group[group["fault_pass"] == name]]
        for measure in measures
    ]
    data = pd.DataFrame(rows)
    blocks = [
        Block(_title(*scope), HEADERS, [_printed(row) for _, row in group.iterrows()])
        for scope, group in (by_group(data, SCOPE) if rows else ())
    ]
    blocks.append(Block("", notes=[READING if rows else "No run is done yet."]))
    source = "measures.measures_section(campaign).data"
    return Section("measures", "Means of what was measured", blocks, data, source)


def _title(*scope: str) -> str:
    *setting, model = scope
    return f"{model}: {setting_title(tuple(setting))}"


def _line(cells: pd.DataFrame, measure: Measure) -> dict[str, object]:
    found = reduce(add, (means[measure.name] for means in cells["means"])).mean()
    return {
        "measure": measure.title,
        "mean": found.estimate,
        "low": found.low,
        "high": found.high,
        "variance": found.variance,
        "n": found.n,
        "nonfinite": found.nonfinite.estimate,
        "nonfinite_low": found.nonfinite.low,
        "nonfinite_high": found.nonfinite.high,
        "nonfinite_n": found.nonfinite.n,
    }


def _printed(row: pd.Series) -> list[str]:
    def value(text: str, *columns: str) -> str:
        absent = row[list(columns)].isna().any()
        return formats.ABSENT if absent else Value(text, row.name, *columns)

    share = formats.percent(row["nonfinite"])
    span = formats.span(row["nonfinite_low"], row["nonfinite_high"])
    return [
        row["fault_pass"],
        row["measure"],
        value(f"{row['mean']:.4g}", "mean"),
        value(f"{row['low']:.4g} to {row['high']:.4g}", "low", "high"),
        value(f"{row['variance']:.3g}", "variance"),
        value(formats.count(row["n"]), "n"),
        value(f"{share} ({span})", "nonfinite", "nonfinite_low", "nonfinite_high"),
    ]

"""The overall table of the publication, the state of the cells, and the protections compared."""

import json
import math
from collections.abc import Iterator

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.comparing import comparisons
from progip.analysis.estimates import (
    UNPROTECTED,
    in_order,
    missing_cells,
    summarise,
    with_unprotected,
)
from progip.analysis.kinds import Kinds
from progip.outcomes.declared import Declared
from progip.report import formats, layout
from progip.report.layout import Block, Section
from progip.report.published import progip as published
from progip.report.sections.words import sentence
from progip.statistics import cluster_bootstrap, compare_independent

#: where a row of the overall table comes from
MEASURED, PUBLISHED = "campaign", "published"
LAST_LINES = (
    ("False alarms, clean ID images, %", "", "clean_id_alarm_rate"),
    ("False alarms, clean OOD images, %", "", "clean_ood_alarm_rate"),
    ("False alarms, harmless faults, %", "", "harmless_alarm_rate"),
)
MOST_LISTED = 40
ESTIMANDS = {
    "layer_mean": "Population: every layer equally likely to be hit, then every neuron in it "
    "(estimand layer_mean).",
    "neuron_weighted": "Population: every neuron equally likely to be hit (estimand "
    "neuron_weighted).",
    "mac_weighted": "Population: layers hit as often as they have multiply-accumulates (estimand "
    "mac_weighted).",
}
READING = [
    "Left: failures the protection did not notice. Detected: 1 - left / failures before protection "
    "in the same rows; n is that number of failures. {failure} Without a protection (none) every "
    "failure is left.",
    "Clean images are counted once for each model and OOD method. A harmless fault is a run "
    "without failure. Intervals are {interval}, 95 %, and take runs as independent although some "
    "share an image.",
]


def lines(declared: Declared) -> list[tuple[str, str, str]]:
    """The lines of the overall table: label, kind of rows counted, rate; one of them is "".

    Below a rate stand its interval and denominator.
    """
    found = [("Fault-injection runs", "done", "")]
    if declared.base:
        found.append((declared.base_title, declared.base, ""))
        found.append(("· of all runs, %", "", f"{declared.base}_rate"))
    for event in declared.events:
        found.append((f"{event.title} left", f"{event.name}_left", ""))
        found.append(("· detected, %", "", f"{event.name}_accuracy"))
    if len(declared.events) > 1:
        found.append(("All failures left", "failures_left", ""))
        found.append(("· detected, % (overall)", "", "overall_accuracy"))
    runs = declared.base_title.lower().removesuffix(" runs")
    found.append((f"· left, % of {runs if declared.base else 'all runs'}", "", "failure_rate"))
    found += LAST_LINES
    if declared.base:
        label = f"· {declared.base_title.lower()} only"
        found.append((label, "", "harmless_correct_alarm_rate"))
    return found


def rows_query(by: list[str], kinds: Kinds) -> str:
    """Python that counts the raw rows of a campaign by these columns, into `counts`."""
    left = "\n".join(
        f'rows["{event.name}_left"] = rows["{event.flag}"] & silent'
        for event in kinds.declared.events
    )
    return f"""from pathlib import Path

import pyarrow.dataset as ds

files = sorted(Path(folder).glob("**/[!_]*/part-*.parquet"))
by = {by!r}
flags = {json.dumps(list(kinds.flags))}
rows = ds.dataset(files).to_table(columns=by + flags).to_pandas()
silent = ~rows["alarm"]
rows["done"] = True
{left}
counts = rows.drop(columns="alarm").groupby(by).sum()
"""


def cells_section(campaign: Campaign) -> Section:
    """Which cells there are, and which are unfinished or missing; the counts of each in the CSV."""
    absent = missing_cells(campaign.cells).assign(status="missing")
    kept_out = ["moments", "milestones", "means", "fits"]
    cells = campaign.cells.drop(columns=kept_out, errors="ignore")
    finished = cells["done"] >= cells["planned"]
    cells.insert(0, "status", finished.map({True: "finished", False: "unfinished"}))
    cells.loc[cells["done"] == 0, "status"] = "not started"
    data = pd.concat([cells, absent], ignore_index=True) if len(absent) else cells
    notes = [
        f"{finished.sum()} of {len(cells)} cells finished, {int(cells['done'].sum()):,} of "
        f"{int(cells['planned'].sum()):,} runs done."
    ]
    rows = [
        [row["folder"], f"{row['done']:,} / {row['planned']:,}", row["status"]]
        for _, row in cells[~finished].iterrows()
    ]
    names = ["model", *SETTING, "population", "ood_method", "fault_pass", "protection"]
    rows += [[" ".join(row[names]), formats.ABSENT, "missing"] for _, row in absent.iterrows()]
    if rows:
        notes.append("The tables rest on the runs done; cells not started or missing are in none.")
    if len(rows) > MOST_LISTED:
        notes.append(f"{len(rows) - MOST_LISTED} more are listed in cells.csv.")
    block = Block("", ["cell", "done / planned", "status"], rows[:MOST_LISTED], notes)
    return Section("cells", "Cells", [block], data, "tables.cells_section(campaign).data")


def overall_section(campaign: Campaign) -> Section:
    """The publication's overall table: quantities as rows, protections as columns."""
    kinds = campaign.kinds
    cells = with_unprotected(campaign.cells, kinds)
    data = summarise(cells, [*SETTING, "protection"], campaign.interval, kinds)
    data.insert(0, "source", MEASURED)
    paper = summarise(published.overall_counts(), ["protection"], campaign.interval)
    paper = paper.assign(source=PUBLISHED, **dict(zip(SETTING, published.SETTING, strict=True)))
    settings = [setting for setting, _ in by_group(data, SETTING)]
    if any(published.shown(campaign, setting) for setting in settings):
        data = pd.concat([data, paper], ignore_index=True)
    paper = data[data["source"] == PUBLISHED]
    blocks = []
    unprotected = campaign.cells[campaign.cells["protection"] == UNPROTECTED]
    corrections = sorted({*campaign.cells.get("correction", [])} - {""})
    measured = {setting for setting, _ in by_group(unprotected, SETTING)}
    for setting, group in by_group(data[data["source"] == MEASURED], SETTING):
        columns = [row for _, row in group.iterrows()]
        headers = [row["protection"] for row in columns]
        notes: list[layout.Note] = []
        if setting not in measured:
            notes.append(f"{UNPROTECTED}: from the rows of the protected cells.")
        if group["done"].nunique() > 1 or group["cells"].nunique() > 1:
            notes.append("The protections do not rest on the same number of runs: see the cells.")
        if group["unfinished"].any():
            notes.append("Some cells are unfinished: the runs they have done are counted.")
        weighted = layout.weighted(group)
        if weighted:
            notes.append(
                "Rows carry weights: rates are weighted, counts and n are of rows; effective n is "
                "the unweighted sample with the same variance."
            )
        notes += [_correcting(name) for name in corrections if name in headers]
        notes.append(ESTIMANDS[campaign.estimand])
        notes += clustered_notes(campaign, setting)
        if published.shown(campaign, setting):
            theirs = paper[paper["protection"].isin(headers)]
            columns += [row for _, row in theirs.iterrows()]
            headers += [f"{name}, publ." for name in theirs["protection"]]
            notes += published_notes()
        rows = list(_rows(columns, weighted, campaign.declared))
        blocks.append(Block(layout.setting_title(setting), ["", *headers], rows, notes, mixed=True))
    kind = layout.INTERVALS[campaign.interval]
    failure = failure_words(campaign.declared)
    notes = [note.format(interval=kind, failure=failure) for note in READING]
    blocks.append(Block("", notes=notes))
    return Section(
        "overall",
        "Overall results",
        blocks,
        data,
        "tables.overall_section(campaign).data",
        rows_query([*SETTING, "protection"], kinds),
    )


def failure_words(declared: Declared) -> str:
    """What a failure is, in a sentence or two."""
    if declared.name == published.OUTCOME:
        return (
            "A failure is a run that was right without its fault (originally correct) and is wrong "
            "with it, in its class or in its ID/OOD verdict; the two kinds do not overlap."
        )
    what = " or ".join(event.clause for event in declared.failures)
    apart = [event.title for event in declared.events if not event.failure]
    among = f" {' and '.join(apart)} are counted among them, too." if apart else ""
    return f"Failures are {declared.base_clause} that {what}.{among}"


def _correcting(name: str) -> str:
    return (
        f"{name} corrects: its failures are those of its own runs of the same faults, after "
        "correction; detected are those in which it had found an error."
    )


def comparison_section(campaign: Campaign) -> Section:
    """Whether the protections differ, in sentences."""
    data, warnings = comparisons(campaign)
    blocks = []
    for setting, group in by_group(data, SETTING):
        notes = [sentence(row, len(group)) for _, row in group.iterrows()]
        blocks.append(Block(layout.setting_title(setting), notes=notes))
    if not blocks:
        blocks.append(Block("", notes=["No two protections watched the same faults."]))
    if warnings:
        blocks.append(Block("", notes=[f"Warning: {text}." for text in warnings]))
    title = "Protections compared on the same faults"
    source = "tables.comparison_section(campaign).data"
    return Section("comparisons", title, blocks, data, source)


def clustered_notes(campaign: Campaign, setting: tuple[str, ...]) -> list[str]:
    """The overall detection accuracy with images, not runs, taken as independent."""
    cells = campaign.cells
    here = cells[(cells[list(SETTING)] == list(setting)).all(axis=1)]
    parts = []
    for protection in in_order("protection", here["protection"].unique()):
        if protection == UNPROTECTED:
            continue
        chosen = here[here["protection"] == protection]
        rows = campaign.failures[campaign.failures["cell"].isin(chosen.index)]
        population = pd.Series(pd.factorize(cells["dataset"] + cells["population"])[0], cells.index)
        image = rows["cell"].map(population) * 2**32 + rows["sample_index"]
        if image.nunique() < 2:
            continue
        found = cluster_bootstrap(rows["alarm"], rows["weight"], image)
        effect = (
            "" if math.isnan(found.design_effect) else f", variance x {found.design_effect:.2f}"
        )
        parts.append(
            f"{protection} {formats.span(found.low, found.high)} "
            f"({found.clusters:,} images{effect})"
        )
    if not parts:
        return []
    return [f"Overall detection, 95 % interval by bootstrap over images: {'; '.join(parts)}."]


def published_notes() -> list[str]:
    """What the published columns are, and what their own counts say of their difference."""
    (c_p, d_p), (c_r, d_r), (c_0, d_0) = (
        published.FAILURES_LEFT[name] for name in ("progip", "ranger", UNPROTECTED)
    )
    n = c_0 + d_0
    gap = compare_independent(n - c_p - d_p, n, n - c_r - d_r, n)
    verdict = "significant" if gap.p_value < 0.05 else "not significant"
    return [
        f"publ. = {published.LABEL}: {published.CITATION}. Its intervals are computed here from "
        "its counts.",
        f"The published {formats.percent(1 - (c_p + d_p) / n)} % of progip against "
        f"{formats.percent(1 - (c_r + d_r) / n)} % of ranger (n = {n:,} failures each, as if "
        f"separate samples) is {verdict}: {formats.points(gap.estimate)} points, 95 % interval "
        f"{formats.points(gap.low)} to {formats.points(gap.high)}, {formats.p_value(gap.p_value)}.",
    ]


def _rows(columns: list[pd.Series], weighted: bool, declared: Declared) -> Iterator[list[str]]:
    for label, kind, rate in lines(declared):
        if not rate:
            yield [label, *(layout.amount(column, kind) for column in columns)]
            continue
        yield [label, *(layout.share(column, rate) for column in columns)]
        yield ["· 95 % interval", *(layout.interval(column, rate) for column in columns)]
        yield ["· n", *(layout.size(column, rate) for column in columns)]
        if weighted:
            yield ["· effective n", *(layout.effective_size(column, rate) for column in columns)]

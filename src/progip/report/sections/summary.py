"""What a campaign found, in sentences: the first thing on the page."""

import math
from collections.abc import Iterator

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.comparing import comparisons
from progip.analysis.estimates import (
    ALL,
    UNPROTECTED,
    missing_cells,
    pool,
    summarise,
    with_unprotected,
)
from progip.outcomes.declared import Declared
from progip.report import formats, layout
from progip.report.layout import Block, Note, Section
from progip.report.sections.coverage import coverage_notes
from progip.report.sections.published_comparison import AGREES, beside_section


def summary_section(campaign: Campaign) -> Section:
    """Findings of each setting, every number with its interval and n."""
    declared, kinds = campaign.declared, campaign.kinds
    cells = pool(with_unprotected(campaign.cells, kinds))
    both = pd.concat([cells.assign(fault_pass=ALL), cells], ignore_index=True)
    data = summarise(both, [*SETTING, "fault_pass", "protection"], campaign.interval, kinds)
    compared, _ = comparisons(campaign)
    beside = beside_section(campaign).data
    correcting = {*campaign.cells.get("correction", [])}
    blocks = [Block("", notes=[_progress(campaign), *coverage_notes(campaign, partial=True)])]
    for setting, group in by_group(data, SETTING):
        notes: list[Note] = [
            *_failures(group, declared),
            *_protections(group, correcting, declared),
        ]
        pairs = _of(compared, setting)
        notes += [_comparison(row, len(pairs)) for _, row in pairs.iterrows()]
        notes += _agreement(_of(beside, setting))
        blocks.append(Block(layout.setting_title(setting), notes=notes))
    source = "summary.summary_section(campaign).data"
    return Section("summary", "Findings", blocks, data, source)


def _of(frame: pd.DataFrame, setting: tuple[str, ...]) -> pd.DataFrame:
    return frame[(frame[list(SETTING)] == list(setting)).all(axis=1)]


def _progress(campaign: Campaign) -> str:
    cells = campaign.cells
    done, planned = int(cells["done"].sum()), int(cells["planned"].sum())
    finished = int((cells["done"] >= cells["planned"]).sum())
    absent = len(missing_cells(cells))
    text = f"{finished} of {len(cells)} cells finished, {done:,} of {planned:,} runs done."
    if finished < len(cells) or absent:
        text = f"Unfinished: {text}"
    return text + (f" {absent} more cells that the others imply are missing." if absent else "")


def _rate(row: pd.Series, name: str) -> tuple[str, ...]:
    """0.99 % (95 % interval 0.87–1.12), in pieces."""
    return (
        layout.share(row, name),
        " % (95 % interval ",
        layout.interval(row, name),
        ")",
    )


def _failures(group: pd.DataFrame, declared: Declared) -> Iterator[Note]:
    bare = group[group["protection"] == UNPROTECTED]
    for _, row in bare[bare["fault_pass"] == ALL].iterrows():
        base = declared.base or "done"
        if not row[base]:
            yield f"There are no {formats.inside(declared.base_title)} yet."
            return
        kinds: list[str] = []
        for event in declared.events:
            count = layout.amount(row, f"{event.name}_failures")
            kinds += [", " if kinds else ": ", count, f" {event.clause}"]
        yield (
            "Without protection ",
            *_rate(row, "failure_rate"),
            " of the ",
            layout.amount(row, base),
            f" {declared.base_clause} fail",
            *kinds,
            ".",
        )
    passes = bare[(bare["fault_pass"] != ALL) & bare["failure_rate"].notna()]
    if len(passes) > 1:
        pieces: list[str] = ["By the pass that the fault hits: "]
        for number, (_, row) in enumerate(passes.iterrows()):
            pieces += [", " * bool(number), row["fault_pass"].replace("_", " "), " "]
            pieces += _rate(row, "failure_rate")
        yield (*pieces, ".")


def _protections(group: pd.DataFrame, correcting: set[str], declared: Declared) -> Iterator[Note]:
    here = group[(group["protection"] != UNPROTECTED) & (group["fault_pass"] == ALL)]
    for _, row in here.iterrows():
        if row["protection"] in correcting:
            pieces = _corrected(row, declared)
        elif not row["failures"]:
            yield f"{row['protection']}: no failure has been seen yet, so nothing is known."
            continue
        else:
            pieces = [
                f"{row['protection']} notices ",
                *_rate(row, "overall_accuracy"),
                " of ",
                layout.amount(row, "failures"),
                " failures and leaves ",
                *_rate(row, "failure_rate"),
                f" of the {_base(declared)} failing.",
            ]
        for name, what in (("clean_id_alarm_rate", "ID"), ("clean_ood_alarm_rate", "OOD")):
            if not math.isnan(row[name]):
                pieces += [f" False alarms on clean {what} images: ", *_rate(row, name), "."]
        yield tuple(pieces)


def _base(declared: Declared) -> str:
    """The runs that can fail, in short: ``correct runs``."""
    return formats.inside(declared.base_title).removeprefix("originally ")


def _corrected(row: pd.Series, declared: Declared) -> list[str]:
    """Of a correcting protection: its failures are those that came about in spite of it."""
    pieces = [
        f"With the corrections of {row['protection']} ",
        layout.amount(row, "failures"),
        " of the ",
        layout.amount(row, declared.base or "done"),
        f" {declared.base_clause} fail",
    ]
    if row["failures"]:
        pieces += ["; it raises an alarm in ", *_rate(row, "overall_accuracy"), " of them"]
    return [
        *pieces,
        ". Failing unnoticed: ",
        *_rate(row, "failure_rate"),
        f" of the {_base(declared)}.",
    ]


def _comparison(row: pd.Series, pairs: int) -> str:
    if math.isnan(row["p_value"]):
        return f"{row['protection_a']} and {row['protection_b']} cannot be compared yet."
    verdict = "is significant" if row["significant"] else "is not significant"
    names = row["protection_a"], row["protection_b"]
    gap, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if gap < 0:
        names, gap, low, high = names[::-1], -gap, -high, -low
    return (
        f"On the same {formats.count(row['failures'])} failures {names[0]} detects "
        f"{formats.percent(gap)} percentage points more than {names[1]} (95 % interval "
        f"{formats.points(low)} to {formats.points(high)}): the difference {verdict} "
        f"({formats.p_value(row['p_holm'])}"
        + (f"; interval and p-value after Holm for {pairs} comparisons)." if pairs > 1 else ").")
    )


def _agreement(rows: pd.DataFrame) -> Iterator[str]:
    known = rows[rows["agreement"] != "no data"]
    if len(known):
        agree = int((known["agreement"] == AGREES).sum())
        yield (
            f"Beside the publication {agree} of {len(known)} quantities agree within their "
            "intervals; the table says which, and how the setups differ."
        )

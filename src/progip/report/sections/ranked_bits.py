"""Vulnerability by bit, ranked."""

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.site_rates import executions_of, site_rates
from progip.report import formats
from progip.report.formats import inside
from progip.report.layout import Block, Section, Value, left_out, setting_title

SHOWN = 8
BY = ["ood_method", "model", "fault_pass"]
HEADERS = ["rank", "bit", "field", "failures / n", "%", "95 % interval"]


def ranked_bits_section(campaign: Campaign) -> Section | None:
    """Failure rate of every bit, the worst first; None where no run hit a single bit."""
    frames = [
        _ranked(campaign, tuple(setting))
        for setting, _ in by_group(campaign.cells, SETTING)
        if any((e.sites["bit"] >= 0).any() for e in executions_of(campaign, tuple(setting)))
    ]
    if not frames:
        return None
    data = pd.concat(frames, ignore_index=True)
    blocks = [
        _block(key, part) for key, part in by_group(data, [*SETTING, *BY]) if part["rows"].sum()
    ]
    base = inside(campaign.declared.base_title) if campaign.declared.base else "runs"
    blocks.append(
        Block(
            "",
            notes=[
                f"The share of {base} that fail before any protection when a fault flips the bit, "
                "all layers and ID and OOD inputs together. Ranks of overlapping intervals say "
                "little."
            ],
        )
    )
    source = "ranked_bits.ranked_bits_section(campaign).data"
    return Section("ranked_bits", "Vulnerability by bit", blocks, data, source)


def _ranked(campaign: Campaign, setting: tuple[str, ...]) -> pd.DataFrame:
    data = site_rates(campaign, setting, [*BY, "bit", "field"])
    data = data[data["bit"] >= 0]
    for name, value in zip(reversed(SETTING), reversed(setting), strict=True):
        data.insert(0, name, value)
    order = data.sort_values(
        [*BY, "estimate", "failures", "bit"],
        ascending=[True, True, True, False, False, False],
        na_position="last",
    )
    order.insert(len(SETTING) + len(BY), "rank", order.groupby(BY, sort=False).cumcount() + 1)
    return order


def _block(key: tuple[str, ...], part: pd.DataFrame) -> Block:
    *setting, method, model, fault_pass = key
    lines = [_line(row) for _, row in part.iterrows()]
    failing = int((part["failures"] > 0).sum())
    printed = min(failing, SHOWN)
    notes = [left_out(failing, len(part), "bits", printed, "ranked_bits")]
    title = f"{model}, {method}, {fault_pass}: {setting_title(tuple(setting))}"
    return Block(title, HEADERS, lines[:printed], notes, lines[printed:])


def _line(row: pd.Series) -> list[str]:
    name = row.name
    known = pd.notna(row["estimate"])
    return [
        Value(str(row["rank"]), name, "rank"),
        Value(str(row["bit"]), name, "bit"),
        row["field"],
        Value(
            f"{formats.count(row['failures'])} / {formats.count(row['correct'])}",
            name, "failures", "correct",
        ),
        Value(formats.percent(row["estimate"]), name, "estimate") if known else formats.ABSENT,
        Value(formats.span(row["low"], row["high"]), name, "low", "high")
        if known
        else formats.ABSENT,
    ]  # fmt: skip

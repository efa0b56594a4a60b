"""Where protections miss failures: by bits, by how near the image is to the threshold, by layer."""

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.missed import BITS, LAYER, MARGIN, missed
from progip.report import formats
from progip.report.layout import Block, Section, Value, setting_title

SHOWN = 8
TITLES = {BITS: "bits", MARGIN: "images nearest to the OOD threshold", LAYER: "layer"}
READING = (
    "Failures that each protection detects, % with 95 % intervals; all OOD methods, passes and "
    "populations together. Images are ordered by the distance of their fault-free score from the "
    "OOD threshold: 0–2 % are the nearest fiftieth of their population's evaluation images. Groups "
    "without failures are left out; layers are ranked by the failures that all protections leave."
)


def missed_section(campaign: Campaign) -> Section | None:
    """One table per network and grouping; None where no protection watched a failure."""
    campaign = campaign.single
    frames = []
    for setting, _ in by_group(campaign.cells, SETTING):
        found = missed(campaign, setting)
        for name, value in zip(reversed(SETTING), reversed(setting), strict=True):
            found.insert(0, name, value)
        frames.append(found)
    data = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    if data.empty:
        return None
    blocks = [_block(key, part) for key, part in by_group(data, [*SETTING, "model", "by"])]
    blocks.append(Block("", notes=[READING]))
    source = "missed.missed_section(campaign).data"
    return Section("missed", "What protections miss", blocks, data, source)


def _block(key: tuple[str, ...], part: pd.DataFrame) -> Block:
    *setting, model, by = key
    protections = list(dict.fromkeys(part["protection"]))
    groups = list(dict.fromkeys(part["group"]))
    if by == LAYER:
        left = part.groupby("group")["left"].sum()
        groups = sorted(groups, key=lambda group: -left[group])
    rows = []
    for group in groups:
        here = part[part["group"] == group].set_index("protection", append=True)
        cells = {str(name): row for (_, name), row in here.iterrows()}
        first = next(iter(cells.values()))
        failures = Value(formats.count(first["failures"]), first.name[0], "failures")
        rows.append([group, failures, *(_cell(cells.get(name)) for name in protections)])
    shown = len(rows) if by != LAYER else SHOWN
    title = f"{model}, by {TITLES[by]}: {setting_title(tuple(setting))}"
    return Block(title, [TITLES[by], "failures", *protections], rows[:shown], rest=rows[shown:])


def _cell(row: pd.Series | None) -> str:
    if row is None:
        return formats.ABSENT
    ends = formats.span(row["detected_low"], row["detected_high"], 1)
    text = f"{formats.percent(row['detected'], 1)} ({ends})"
    return Value(text, row.name[0], "detected", "detected_low", "detected_high")

"""The map of layers and bits: every layer of the network, however many, by groups of bits."""

import math

import pandas as pd

from progip.analysis.bit_groups import BY, WIDEST, grouped_rates
from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.site_rates import executions_of
from progip.report import formats
from progip.report.figures.base import readable
from progip.report.formats import inside
from progip.report.layout import FEW, Block, Section, Value, setting_title

#: a square is shaded by the first of these that its rate does not exceed; 0 has no shade
SHADES = (0.0, 0.005, 0.02, 0.05, 0.15, 0.40, 1.0)


def map_section(campaign: Campaign) -> Section | None:
    """Failure rate by layer and group of bits; None where no run hit a single bit."""
    frames = []
    for setting, _ in by_group(campaign.cells, SETTING):
        executions = executions_of(campaign, tuple(setting))
        for model in dict.fromkeys(e.names["model"] for e in executions):
            found = grouped_rates(campaign, tuple(setting), model)
            for name, value in zip(reversed(SETTING), reversed(setting), strict=True):
                if len(found):
                    found.insert(0, name, value)
            frames.append(found)
    if not any(len(frame) for frame in frames):
        return None
    data = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    blocks = [_block(key, part) for key, part in by_group(data, [*SETTING, *BY])]
    blocks.append(Block("", notes=_reading(campaign)))
    source = "site_map.map_section(campaign).data"
    return Section("map", "Map of layers and bits", blocks, data, source)


def _block(key: tuple[str, ...], part: pd.DataFrame) -> Block:
    *setting, model, method, fault_pass = key
    columns = part.drop_duplicates("bits").sort_values("lowest", ascending=False)["bits"]
    rows = []
    for _, line in part.groupby("layer_number", sort=True):
        cells = {row["bits"]: _square(row) for _, row in line.iterrows()}
        layer = str(line["layer"].iloc[0])
        rows.append([layer, *(cells.get(bits, formats.ABSENT) for bits in columns)])
    title = f"{model}, {method}, {readable(fault_pass)}: {setting_title(tuple(setting))}"
    return Block(title, ["layer", *columns], rows, is_map=True)


def _square(row: pd.Series) -> str:
    """A rate in per cent; the counts alone where they say nothing of the rate."""
    if not row["correct"]:
        return formats.ABSENT
    counts = f"{formats.count(row['failures'])}/{formats.count(row['correct'])}"
    if row["says"]:
        value = Value(formats.percent(row["estimate"], 1), row.name, "estimate")
        value.shade = next(i for i, most in enumerate(SHADES) if row["estimate"] <= most)
    else:
        value = Value(counts, row.name, "failures", "correct")
        value.shade = FEW
    value.hint = (
        f"{row['layer']}, {row['bits']}: {counts.replace('/', ' of ')} fail, "
        f"{formats.percent(row['estimate'])} % (95 % interval "
        f"{formats.span(row['low'], row['high'])})"
    )
    if math.isnan(row["estimate"]):  # weights of 0 there are none, so no such square
        return formats.ABSENT
    return value


def _reading(campaign: Campaign) -> list[str]:
    base = inside(campaign.declared.base_title) if campaign.declared.base else "runs"
    shades = ", ".join(f"{100 * most:g}" for most in SHADES)
    return [
        f"Share of {base} in per cent that fail before any protection, by the layer that was hit "
        "(in the order of the network) and the flipped bits, the most significant to the left; ID "
        f"and OOD inputs together. Shades end at {shades} %. Hatched, with failures / n: the 95 % "
        f"interval is wider than {100 * WIDEST:.0f} points, so few runs say nothing of the rate. A "
        "dash: no such run. Bits are grouped where the runs are too few for each. Point at a "
        "square, or go there with the arrow keys, for its interval and n. Each single bit: "
        "vulnerability.csv, drawn in vulnerability.svg.",
    ]

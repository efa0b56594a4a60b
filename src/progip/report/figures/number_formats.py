"""Failures and losses by number format: the comparison that GoldenEye makes."""

from functools import reduce
from itertools import cycle
from operator import add

import pandas as pd
from matplotlib.figure import Figure as Drawing

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import in_order
from progip.analysis.site_rates import executions_of, site_rates
from progip.report.figures import style
from progip.report.figures.base import Figure, in_words

TITLE = "Failures by number format"
CAPTION = (
    "Share of runs that fail before any protection, by the number format of the values that are "
    "hit, with 95 % intervals; colours say which field of the format was hit.{measures}"
)
KEY = ("model", "ood_method", "fault_pass")
#: of fields, in the order in which they are stacked
_COLOURS = {
    "sign": style.PURPLE,
    "exponent": style.VERMILION,
    "integer": style.ORANGE,
    "fraction": style.SKY,
    "metadata": style.GREEN,
}


def number_formats(campaign: Campaign) -> list[Figure]:
    """One figure where a campaign has faults of single neurons in two number formats or more."""
    cells = campaign.single.cells
    if cells.empty or cells["number_format"].nunique() < 2:
        return []
    parts = [_of_setting(campaign, tuple(setting)) for setting, _ in by_group(cells, SETTING)]
    parts = [part for part in parts if len(part)]
    if not parts:
        return []
    data = pd.concat(parts, ignore_index=True)
    titles = [m.title for m in campaign.declared.measures if m.by_layer]
    more = f" Beside them: mean {' and '.join(titles)}, Student's intervals." if titles else ""
    caption = CAPTION.format(measures=more)
    source = "figures.number_formats(campaign)[0]"
    return [Figure("number_formats", TITLE, caption, _alt(data), data, draw, source)]


def _of_setting(campaign: Campaign, setting: tuple[str, ...]) -> pd.DataFrame:
    """One row per network, detector and pass: the rate, the part of every field, the means."""
    executions = [e for e in executions_of(campaign, setting) if len(e.sites)]
    if not executions:
        return pd.DataFrame()
    data = site_rates(campaign, setting, list(KEY))
    sites = pd.concat([e.sites.assign(**{n: e.names[n] for n in KEY}) for e in executions])
    whole = sites.groupby(list(KEY))["weight"].sum()
    for field, part in sites.groupby("field"):
        share = (part.groupby(list(KEY))["failure_weight"].sum() / whole).rename(f"in_{field}")
        data = data.merge(share.reset_index(), on=list(KEY), how="left")
    cells = campaign.cells
    here = (cells[list(SETTING)] == list(setting)).all(axis=1) & (cells["correction"] == "")
    cells = cells[here & (cells["done"] > 0)].drop_duplicates(list(KEY))
    for measure in campaign.declared.measures:
        if not measure.by_layer:
            continue
        rows = []
        for key, part in by_group(cells, KEY):
            found = reduce(add, (means[measure.name] for means in part["means"])).mean()
            names = (measure.name, f"{measure.name}_low", f"{measure.name}_high")
            values = dict(zip(names, (found.estimate, found.low, found.high), strict=True))
            rows.append({**dict(zip(KEY, key, strict=True)), **values})
        data = data.merge(pd.DataFrame(rows), on=list(KEY), how="left")
    data.insert(0, "number_format", setting[SETTING.index("number_format")])
    return data


def _measures(data: pd.DataFrame) -> list[str]:
    return [name.removesuffix("_low") for name in data if name.endswith("_low")]


def _alt(data: pd.DataFrame) -> str:
    said = []
    for key, part in by_group(data, KEY):
        found = "; ".join(
            f"{row['number_format']} {in_words(*row[['estimate', 'low', 'high', 'correct']])}"
            for _, row in part.iterrows()
        )
        said.append(f"{', '.join(map(str, key))}: {found}.")
    return f"Bars, one per number format. {' '.join(said)}"


def _colours(fields: list[str]) -> dict[str, str]:
    """Of every field, those that a user's number format has, too; in the order of stacking."""
    others = [field for field in fields if field not in _COLOURS and field != "none"]
    found = {field: colour for field, colour in _COLOURS.items() if field in fields}
    return found | dict(zip(others, cycle((style.BLUE, style.YELLOW, style.BLACK)), strict=False))


def draw(data: pd.DataFrame) -> Drawing:
    """A row of panels per network, detector and pass: rates by field, and each mean."""
    keys = list(by_group(data, KEY))
    measures = _measures(data)
    height = 0.6 + 0.2 * data["number_format"].nunique()
    drawing, axes = style.panels(len(keys), 1 + len(measures), height, sharey="row")
    colours = _colours([n.removeprefix("in_") for n in data if n.startswith("in_")])
    for row, (key, part) in enumerate(keys):
        part = part.set_index("number_format").loc[
            in_order("number_format", part["number_format"])[::-1]
        ]
        panel = axes[row, 0]
        left = 0 * part["estimate"]
        for field, colour in colours.items():
            width = 100 * part[f"in_{field}"].fillna(0)
            panel.barh(part.index, width, left=left, color=colour, label=field)
            left = left + width
        panel.errorbar(
            100 * part["estimate"], part.index, fmt="none", ecolor=style.BLACK, capsize=2,
            xerr=100 * abs(part[["low", "high"]].sub(part["estimate"], axis=0)).to_numpy().T,
            elinewidth=0.8,
        )  # fmt: skip
        words = [
            f"{code}: {in_words(*row[['estimate', 'low', 'high', 'correct']])} fail"
            for code, row in part.iterrows()
        ]
        style.mark(panel, 100 * part["estimate"], range(len(part)), words)
        panel.set_title(", ".join(name for name in map(str, key) if name != "none"), loc="left")
        panel.set_xlabel("failures, %")
        for place, name in enumerate(measures, 1):
            ends = abs(part[[f"{name}_low", f"{name}_high"]].sub(part[name], axis=0))
            axes[row, place].errorbar(
                part[name], part.index, xerr=ends.to_numpy().T, fmt="o", color=style.BLACK,
                capsize=2, elinewidth=0.8, ms=3,
            )  # fmt: skip
            axes[row, place].set_xlabel(f"mean {name.replace('_', ' ')}")
            axes[row, place].set_xlim(left=0)
    style.legend_below(drawing, axes[0, 0], len(colours))
    return drawing

"""Distributions of the detector's score, clean and faulty, with the thresholds drawn."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import NullLocator

from progip.analysis.campaign import Campaign, by_group
from progip.analysis.estimates import ALL, in_order
from progip.analysis.site_rates import executions_of
from progip.passes import is_pass
from progip.records import EVERY_PASS
from progip.report import formats
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, readable

TITLE = "Scores, clean and faulty"
CAPTION = (
    "Filled: scores of the clean evaluation images, in per cent of the images. Lines: scores of "
    "all faulty runs of that pass, in per cent of the runs; logarithmic scale. The outermost bins "
    "hold everything beyond, and scores that are not finite are named in the panel. Vertical "
    "lines: the threshold between OOD (left) and ID (right), and where protections raise an alarm."
)
_OLD = (
    "it needs the clean scores of every image, which this campaign was made without; the same "
    "command with this version adds them to the campaign and executes nothing again"
)
_THRESHOLDS = {"ood": "OOD | ID", "score_high": "alarm above", "score_low": "alarm below"}


def scores(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Histograms of scores by detector, pass and population, and the thresholds of the cells.

    Rows of `data`: kind `clean`, `faulty` or `threshold` (with its name, low = high = its value);
    bins from `low` to `high`, infinite for what lies beyond and NaN for what is not finite, with
    the count, its share of all, and how many of them are failures.
    """
    executions = executions_of(campaign, setting)
    if any(e.clean is None for e in executions):
        return [Absent("scores", TITLE, _OLD)]
    parts = []
    for execution in executions:
        names = {n: execution.names[n] for n in ("model", "ood_method", "population")}
        low = np.concatenate([[-np.inf], execution.edges, [np.nan]])
        high = np.concatenate([execution.edges, [np.inf, np.nan]])
        counts = np.append(execution.scores, execution.nonfinite)
        failing = np.append(execution.failing_scores, execution.failing_nonfinite)
        head = {"kind": "faulty", **names, "fault_pass": execution.names["fault_pass"]}
        parts.append(_histogram(head, low, high, counts, failing))
        clean = execution.clean
        assert clean is not None  # asked before
        mine = (clean["split"] == "evaluation") & (clean["population"] == names["population"])
        values = clean.loc[mine, "score"].to_numpy()
        finite = np.isfinite(values)
        place = np.searchsorted(execution.edges, values[finite], side="right")
        counts = np.append(np.bincount(place, minlength=len(low) - 1), (~finite).sum())
        head = {"kind": "clean", **names, "fault_pass": "clean"}
        parts.append(_histogram(head, low, high, counts, np.zeros_like(counts)))
        for cell in execution.cells:
            manifest = campaign.folders[cell].manifest
            for key in _THRESHOLDS:
                if (value := (manifest.get("thresholds") or {}).get(key)) is not None:
                    owner = "" if key == "ood" else f"{manifest['cell']['protection']} "
                    head = {"kind": "threshold", **names, "population": ALL, "fault_pass": ALL}
                    head["name"] = owner + key
                    parts.append(pd.DataFrame([{**head, "low": value, "high": value}]))
    data = pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)
    return [Figure("scores", TITLE, CAPTION, _alt(data), data, draw, called("scores", setting))]


def _histogram(
    head: dict[str, str], low: np.ndarray, high: np.ndarray, counts: np.ndarray, failing: np.ndarray
) -> pd.DataFrame:
    total = max(int(counts.sum()), 1)
    return pd.DataFrame(
        {**head, "low": low, "high": high, "count": counts, "share": counts / total}
    ).assign(failures=failing)


def _alt(data: pd.DataFrame) -> str:
    faulty = data[data["kind"] == "faulty"]
    lost = faulty[faulty["low"].isna()]
    said = []
    for (method, name), group in by_group(faulty, ["ood_method", "fault_pass"]):
        here = lost[(lost["ood_method"] == method) & (lost["fault_pass"] == name)]
        share = here["count"].sum() / max(group["count"].sum(), 1)
        said.append(f"{method} {readable(name)} {formats.percent(share)} %")
    return (
        "Histograms; most faulty runs keep the score of their clean image. Scores that are not "
        f"finite, of all faulty runs: {', '.join(said)}."
    )


def draw(data: pd.DataFrame) -> Drawing:
    """One row per detector, one column per pass."""
    bars = data[data["kind"] != "threshold"]
    detectors = list(by_group(bars, ["model", "ood_method"]))
    shown = {name for name in bars["fault_pass"] if is_pass(name) or name == EVERY_PASS}
    names = in_order("fault_pass", shown)
    drawing, axes = style.panels(len(detectors), len(names), 2.2, sharey=True, sharex="row")
    limits = data[data["kind"] == "threshold"]
    for row, (key, group) in enumerate(detectors):
        mine = limits[(limits["model"] == key[0]) & (limits["ood_method"] == key[1])]
        for column, name in enumerate(names):
            panel = axes[row, column]
            lost = []
            for population in in_order("population", group["population"].unique()):
                look = style.POPULATION_LOOKS[population]
                part = group[group["population"] == population]
                clean = part[part["kind"] == "clean"]
                faulty = part[part["fault_pass"] == name]
                hatch = {"id": None, "ood": "////"}[population]
                _steps(panel, clean, color=look.color, fill=True, alpha=0.3, hatch=hatch, lw=0,
                       label=f"{population.upper()}, clean")  # fmt: skip
                _steps(panel, faulty, color=look.color, ls=look.line,
                       label=f"{population.upper()}, faulty")  # fmt: skip
                style.mark(panel, *_tops(faulty, f"{population.upper()} {readable(name)}"))
                share = faulty.loc[faulty["low"].isna(), "share"].sum()
                lost.append(f"{population.upper()} {formats.percent(float(share))} %")
            for value, names_there in mine.groupby("low", sort=False)["name"]:
                limit = _together(list(names_there))
                own = limit == "ood"
                panel.axvline(value, color="black", lw=1.2 if own else 0.8,
                              ls="-" if own else (0, (2, 2)))  # fmt: skip
                panel.annotate(
                    _said(limit), (value, 1), xycoords=("data", "axes fraction"),
                    rotation=90, ha="right", va="top", fontsize=6,
                )  # fmt: skip
            panel.set_yscale("log")
            panel.yaxis.set_minor_locator(NullLocator())
            panel.set_title(f"{key[1]}: {readable(name)}", loc="left")
            panel.set_xlabel(f"score of {key[0]}\nnot finite: {', '.join(lost)}", fontsize=7)
            panel.tick_params(axis="x", labelsize=6.5)
            panel.ticklabel_format(axis="x", useOffset=False)
            panel.locator_params(axis="x", nbins=4)
        axes[row, 0].set_ylabel("% of images or runs")
    style.legend_below(drawing, axes[0, 0])
    return drawing


def _tops(bins: pd.DataFrame, what: str) -> tuple[list[float], list[float], list[str]]:
    """Where the bars of a histogram end, and what they say."""
    known = bins[np.isfinite(bins["low"]) & np.isfinite(bins["high"]) & (bins["share"] > 0)]
    words = [
        f"{what}, score {row['low']:.4g} to {row['high']:.4g}: {formats.count(row['count'])} runs, "
        f"{formats.percent(row['share'])} %, {formats.count(row['failures'])} of them failures"
        for _, row in known.iterrows()
    ]
    return [*((known["low"] + known["high"]) / 2)], [*(100 * known["share"])], words


def _together(names: list[str]) -> str:
    """One name for thresholds at the same place: their owners, and what they do."""
    owners = [name.rpartition(" ")[0] for name in names]
    return f"{', '.join(owners)} {names[0].rpartition(' ')[2]}".strip()


def _said(name: str) -> str:
    owner, _, key = name.rpartition(" ")
    return f"{owner} {_THRESHOLDS[key]}".strip()


def _steps(panel: Axes, bins: pd.DataFrame, **options: Any) -> None:
    """A histogram; the bins that reach to infinity are drawn as wide as the others."""
    bins = bins[bins["low"].notna()].sort_values("low")
    width = float((bins["high"] - bins["low"]).replace(np.inf, np.nan).median())
    edges = np.append(bins["low"].to_numpy(), bins["high"].iloc[-1])
    edges[0], edges[-1] = edges[1] - width, edges[-2] + width
    shares = 100 * bins["share"].to_numpy()
    panel.stairs(np.where(shares > 0, shares, np.nan), edges, **options)

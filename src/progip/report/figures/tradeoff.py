"""Failures detected against false alarms on clean images, as the thresholds of protections move."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing
from numpy.typing import NDArray

from progip.analysis.campaign import DETECTOR, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED, in_order
from progip.analysis.observing import ExecutedRuns
from progip.analysis.site_rates import executions_of
from progip.errors import ProgipError
from progip.protections.base import Evidence, protection_from
from progip.report.figures import style
from progip.report.figures.base import Absent, Figure, called, in_words
from progip.statistics import proportion_interval, weighted_rate

TITLE = "Detector trade-off"
CAPTION = (
    "Share of failures detected against share of clean evaluation images (ID and OOD together) "
    "that raise a false alarm, as one threshold of a protection moves and its others stay: "
    "gradient_margin and score_margin of ProGIP, margin of Ranger. The marker is the campaign's "
    "own threshold, with 95 % intervals. Up and to the left is better. The horizontal scale is "
    "logarithmic above 0.1 %."
)
MOST_POINTS = 60
_OLD = (
    "it needs the clean evidence of every image, which this campaign was made without; the same "
    "command with this version adds it to the campaign and executes nothing again"
)


ENDS = ("", "_low", "_high", "_n")


def tradeoff(campaign: Campaign, setting: tuple[str, ...]) -> list[Figure | Absent]:
    """Detected failures and false alarms for each value of each movable option, by detector."""
    executions = executions_of(campaign, setting)
    if any(e.clean is None for e in executions):
        return [Absent("tradeoff", TITLE, _OLD)]
    detectors: dict[tuple[str, ...], list[ExecutedRuns]] = {}
    for execution in executions:
        key = tuple(str(execution.names[name]) for name in DETECTOR)
        detectors.setdefault(key, []).append(execution)
    parts = [
        curve
        for key, mine in detectors.items()
        if any(len(e.failing) for e in mine)
        for curve in _curves(campaign, key, mine)
    ]
    if not parts:
        return [Absent("tradeoff", TITLE, "no failure, or no protection with a movable threshold")]
    data = pd.concat(parts, ignore_index=True)
    return [Figure("tradeoff", TITLE, CAPTION, _alt(data), data, draw, called("tradeoff", setting))]


def _curves(
    campaign: Campaign, detector: tuple[str, ...], executions: list[ExecutedRuns]
) -> Iterator[pd.DataFrame]:
    """One frame a protection and option of one detector."""
    clean = executions[0].clean
    assert clean is not None  # asked before
    calibration = clean[clean["split"] == "calibration"]
    images = _evidence(clean[clean["split"] == "evaluation"])
    failing = pd.concat([e.failing for e in executions], ignore_index=True)
    weights = failing["weight"].to_numpy(np.float64)
    manifests: dict[str, dict[str, Any]] = {}
    for execution in executions:
        for cell in execution.cells:
            manifest = campaign.folders[cell].manifest
            manifests.setdefault(manifest["cell"]["protection"], manifest)
    for name in in_order("protection", manifests):
        manifest = manifests[name]
        try:
            protection = protection_from((manifest.get("config") or {}).get("protection") or {})
        except ProgipError:  # a class that is not installed here; its other figures need none
            continue
        usual = _evidence(calibration[calibration["population"].isin(protection.calibrated_on)])
        limits = manifest.get("thresholds") or {}
        faulty = protection.least_margins(_evidence(failing), usual, limits)
        quiet = protection.least_margins(images, usual, limits)
        now = {option: float(getattr(protection, option)) for option in faulty}
        for option in faulty:
            rest = [other for other in faulty if other != option]
            caught = _any([faulty[other] > now[other] for other in rest], len(failing))
            false = _any([quiet[other] > now[other] for other in rest], len(images["score"]))
            values = _values(np.concatenate([faulty[option], quiet[option]]), now[option])
            yield pd.DataFrame(
                {
                    **dict(zip(DETECTOR, detector, strict=True)),
                    "protection": name,
                    "option": option,
                    "value": values,
                    "own": values == now[option],
                    **_rates("detected", faulty[option], values, caught, weights),
                    **_rates("false_alarms", quiet[option], values, false, np.ones(len(false))),
                }
            )


def _evidence(rows: pd.DataFrame) -> Evidence:
    return {str(name): column.to_numpy() for name, column in rows.items()}


def _any(alarms: list[NDArray[np.bool_]], count: int) -> NDArray[np.bool_]:
    return np.any(alarms, axis=0) if alarms else np.zeros(count, dtype=bool)


def _values(margins: NDArray[np.float64], now: float) -> NDArray[np.float64]:
    """Values at which something changes, thinned out; `now` among them."""
    finite = np.unique(margins[np.isfinite(margins)])
    if len(finite) > MOST_POINTS:
        finite = finite[np.linspace(0, len(finite) - 1, MOST_POINTS).round().astype(int)]
    below = finite[:1] - 1  # where everything raises an alarm
    return np.unique(np.concatenate([below, finite, [now]]))


def _rates(
    name: str,
    margins: NDArray[np.float64],
    values: NDArray[np.float64],
    always: NDArray[np.bool_],
    weights: NDArray[np.float64],
) -> dict[str, NDArray]:
    """Share of executions with an alarm at each value of the option, with its interval."""
    alarms = always | (margins > values[:, None])
    k = alarms.sum(axis=1)
    if (weights == weights[0]).all():
        low, high = proportion_interval(k, len(margins))
        estimate = k / len(margins)
    else:
        rates = [weighted_rate(row, weights) for row in alarms]
        estimate, low, high = (
            np.array([getattr(rate, part) for rate in rates])
            for part in ("estimate", "low", "high")
        )
    n = np.full(len(values), len(margins))
    return {name: estimate, f"{name}_low": low, f"{name}_high": high, f"{name}_n": n}


def _alt(data: pd.DataFrame) -> str:
    said = []
    for _, row in data[data["own"]].iterrows():
        found = [row[f"detected{end}"] for end in ("", "_low", "_high", "_n")]
        false = [row[f"false_alarms{end}"] for end in ("", "_low", "_high", "_n")]
        said.append(
            f"{row['model']} {row['ood_method']} {row['protection']}: detects {in_words(*found)}, "
            f"false alarms {in_words(*false)}"
        )
    return f"Curves. At the campaign's own thresholds: {'; '.join(dict.fromkeys(said))}."


def draw(data: pd.DataFrame) -> Drawing:
    """One panel per detector, one curve per protection and option."""
    detectors = list(by_group(data, ["model", "ood_method"]))
    columns = min(2, len(detectors))
    rows = -(-len(detectors) // columns)
    drawing, axes = style.panels(rows, columns, 2.9, sharex=True, sharey=True)
    looks = style.looks({*data["protection"]} | {UNPROTECTED})
    for panel, (key, group) in zip(axes.flat, detectors, strict=False):
        for (protection, option), curve in by_group(group, ["protection", "option"]):
            curve = curve.sort_values("value", ascending=False)
            look = looks[protection]
            second = option == "score_margin"
            panel.step(
                100 * curve["false_alarms"], 100 * curve["detected"], where="post",
                color=look.color, ls=look.line, lw=0.9 if second else 1.6,
                label=f"{protection}: {option}",
            )  # fmt: skip
            own = curve[curve["own"].astype(bool)].iloc[0]
            panel.errorbar(
                100 * own["false_alarms"], 100 * own["detected"], fmt=look.marker, color=look.color,
                xerr=style.percent_off(own, "false_alarms"),
                yerr=style.percent_off(own, "detected"),
                elinewidth=0.7, capsize=2,
            )  # fmt: skip
            points = curve[curve["own"].astype(bool) | (np.arange(len(curve)) % 8 == 0)]
            words = [
                f"{protection}, {option} = {row['value']:.3g}: detects "
                f"{in_words(*(row[f'detected{end}'] for end in ENDS))}, false alarms "
                f"{in_words(*(row[f'false_alarms{end}'] for end in ENDS))}"
                for _, row in points.iterrows()
            ]
            style.mark(panel, 100 * points["false_alarms"], 100 * points["detected"], words)
        panel.set_title(", ".join(key), loc="left")
        style.false_alarm_scale(panel)
    for panel in axes.flat[len(detectors) :]:
        panel.set_visible(False)
    for panel in axes[-1]:
        panel.set_xlabel("false alarms, % of clean images")
    for panel in axes[:, 0]:
        panel.set_ylabel("failures detected, %")
    style.legend_below(drawing, axes[0, 0], 3)
    return drawing

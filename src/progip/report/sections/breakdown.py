"""The base metrics of the detectors, and the overall table taken apart by pass, method, model."""

import math
from collections.abc import Iterable

import pandas as pd

from progip.analysis.campaign import DETECTOR, SETTING, Campaign, by_group
from progip.analysis.estimates import (
    ALL,
    NAN_DOMINANT,
    UNPROTECTED,
    in_order,
    pool,
    summarise,
    with_unprotected,
)
from progip.analysis.manifests import USUAL
from progip.outcomes.declared import Declared
from progip.report import formats, layout
from progip.report.formats import inside
from progip.report.layout import Block, Note, Section, Value
from progip.report.published import progip as published
from progip.report.sections.published_comparison import AGREEMENT_READING, agreement
from progip.report.sections.tables import rows_query
from progip.statistics import auroc_interval, rate

#: metric: (column header, events, denominator, where the publication has it)
METRICS = {
    "id_accuracy": ("ID accuracy", "id_correct", "accuracy_images"),
    "auroc": ("AUROC", "", ""),
    "fpr95": ("FPR at 95 % TPR", "", "ood_images"),
    "tpr": ("TPR at threshold", "id_true_positives", "id_images"),
    "fpr": ("FPR at threshold", "ood_false_positives", "ood_images"),
}
#: those that change where the input is not perturbed
SEPARATION = ("auroc", "fpr95", "tpr", "fpr")
UNPERTURBED = "unperturbed_"
UNPERTURBED_READING = (
    "At epsilon 0: the same method on the same images without its perturbation, with a threshold "
    "calibrated for it; the class is the same."
)
ACCURACY_READING = "In %; n in images. Intervals: {interval}."
BASE_READING = (
    "In %; n in images (ID + OOD for AUROC). ID is the positive class. The threshold is the "
    "calibrated one that the campaign used; FPR at 95 % TPR takes its own from the evaluation "
    "images. Intervals: AUROC Newcombe (2006) with the variance of Hanley and McNeil; the others "
    "{interval}."
)
READING = [
    "{events}, as left / before protection; detected in % with its 95 % interval, n being the "
    "number before protection. {base}. *: some of its cells are unfinished or missing.",
    f"N: NaN-dominant, more than {100 * NAN_DOMINANT:.0f} % of the failures are not finite "
    "(forward passes: logits or score; backward pass: gradient). Many intervals stand here: some "
    "miss the truth by chance alone.",
]


def base_metrics(base: pd.DataFrame, method: str = "wilson") -> pd.DataFrame:
    """Base metrics with 95 % intervals, one row per detector.

    Args:
        base: as `Campaign.base`.
        method: of the intervals of all metrics but AUROC.

    Returns:
        DETECTOR and, for each of METRICS, its value, _low, _high (fractions of 1) and _n (images;
        AUROC has _n of ID and _m of OOD images), the same of the method without its perturbation as
        unperturbed_* (NaN where there is none), then the published values. The interval of AUROC
        is Newcombe's with the variance of Hanley and McNeil, from the area and the two sizes; that
        of fpr95 takes its threshold as given.
    """
    rows = []
    for _, row in base.iterrows():
        out: dict[str, object] = {name: row[name] for name in DETECTOR}
        out |= _estimates(row, METRICS, method)
        out |= _estimates(row, SEPARATION, method, UNPERTURBED)
        known = published.base_metrics(*(row[name] for name in DETECTOR[:4]))
        for name in published.BaseMetrics._fields:
            value = getattr(known, name) if known else math.nan
            out[f"published_{name}"] = value
            ours = [float(str(out[f"{name}{end}"])) for end in ("_low", "_high")]
            out[f"agreement_{name}"] = agreement(ours[0], ours[1], value, value)
        rows.append(out)
    return pd.DataFrame(rows)


def _estimates(
    row: pd.Series, metrics: Iterable[str], method: str, prefix: str = ""
) -> dict[str, float]:
    """Value, interval and n of some METRICS, whose columns in the row have a prefix."""
    out: dict[str, float] = {}
    for name in metrics:
        _, events, images = METRICS[name]
        value = low = high = math.nan
        n = row[f"{prefix}{images or 'id_images'}"]
        if name == "auroc":
            value, m = row[f"{prefix}auroc"], row[f"{prefix}ood_images"]
            if not (math.isnan(value) or math.isnan(n) or math.isnan(m)):
                low, high = auroc_interval(value, int(n), int(m))
            out[f"{prefix}auroc_m"] = m
        else:
            k = row[f"{prefix}{events}"] if events else row[f"{prefix}{name}"] * n
            if not (math.isnan(k) or math.isnan(n)):
                estimate = rate(round(k), int(n), method=method)
                value, low, high = estimate.estimate, estimate.low, estimate.high
        found = {"": value, "_low": low, "_high": high, "_n": n}
        out |= {f"{prefix}{name}{end}": number for end, number in found.items()}
    return out


def base_section(campaign: Campaign) -> Section:
    """ID accuracy, AUROC and FPR of every detector, the published ones below where they exist."""
    data = base_metrics(campaign.base, campaign.interval)
    blocks = []
    names = ["model", "dataset", "ood_dataset", "number_format"]
    for (model, dataset, ood, code), group in by_group(data, names):
        rows = []
        measured = list(METRICS) if ood != "none" else ["id_accuracy"]
        headers = ["", *(METRICS[metric][0] for metric in measured)]
        for _, row in group.iterrows():
            rows.append([row["ood_method"], *(_percent(row, metric) for metric in measured)])
            rows.append(["· 95 % interval", *(_limits(row, metric) for metric in measured)])
            rows.append(["· n", *(_images(row, metric) for metric in measured)])
            if not math.isnan(row[f"{UNPERTURBED}auroc"]):
                own = [f"{UNPERTURBED}{metric}" for metric in SEPARATION]
                rows.append(["· at epsilon 0", "", *(_percent(row, metric) for metric in own)])
                rows.append(["· 95 % interval", "", *(_limits(row, metric) for metric in own)])
            if not math.isnan(row["published_auroc"]):
                rows.append(["· published", *(_percent(row, f"published_{m}") for m in METRICS)])
                rows.append(["· ours", *(_agreement(row, metric) for metric in METRICS)])
        numbers = "" if code == USUAL["number_format"] else f", numbers {code}"
        against = "" if ood == "none" else f" against {ood}"
        blocks.append(Block(f"{model}, {dataset}{against}{numbers}", headers, rows))
    reading = BASE_READING if (data["ood_dataset"] != "none").any() else ACCURACY_READING
    notes: list[Note] = [reading.format(interval=layout.INTERVALS[campaign.interval])]
    if data[f"{UNPERTURBED}auroc"].notna().any():
        notes.append(UNPERTURBED_READING)
    if data["published_auroc"].notna().any():
        notes.append(AGREEMENT_READING)
        notes.append(f"{published.LABEL}: {published.CITATION}; without n or interval there.")
    blocks.append(Block("", notes=notes))
    return Section(
        "base_metrics",
        "Base metrics without faults",
        blocks,
        data,
        "breakdown.base_section(campaign).data",
    )


def pass_section(campaign: Campaign) -> Section:
    """The overall quantities by pass: all together, for each OOD method, and for each model."""
    declared, kinds = campaign.declared, campaign.kinds
    cells = with_unprotected(campaign.cells, kinds)
    scopes = [pool(cells, ood_method=ALL, model=ALL)]
    if cells["ood_method"].nunique() > 1:
        scopes.append(pool(cells, model=ALL))
    if cells["model"].nunique() > 1:
        scopes.append(pool(cells))
    wide = pd.concat(scopes, ignore_index=True)
    both = pd.concat([wide, wide.assign(fault_pass=ALL)], ignore_index=True)
    scope = [*SETTING, "ood_method", "model"]
    data = summarise(both, [*scope, "fault_pass", "protection"], campaign.interval, kinds)
    blocks = [
        _pass_block(key, group, every, declared)
        for _, every in by_group(data, SETTING)
        for key, group in by_group(every, scope)
    ]
    words = {
        "events": ", ".join(f"{e.short}: {inside(e.title)}" for e in declared.events),
        "base": f"correct: {inside(declared.base_title)}",
    }
    blocks.append(Block("", notes=[note.format(**words) for note in READING]))
    return Section(
        "per_pass",
        "Results per pass",
        blocks,
        data,
        "breakdown.pass_section(campaign).data",
        rows_query([*SETTING, "ood_method", "fault_pass", "protection"], kinds),
    )


def _pass_block(
    key: tuple[str, ...], group: pd.DataFrame, every: pd.DataFrame, declared: Declared
) -> Block:
    """One scope by pass and protection; every: the rows of the whole setting, for what is missing.

    A row with fewer cells than the fullest of its pass or scope, or with unfinished ones, gets *.
    """
    *setting, method, model = key
    rows, marks = [], []
    protections = in_order("protection", every["protection"].unique())
    single = group.loc[group["fault_pass"] != ALL, "cells"].max()
    for name in in_order("fault_pass", every["fault_pass"].unique()):
        part = group[group["fault_pass"] == name]
        most = part["cells"].max() if name == ALL else single
        label = name
        if name != ALL and len(part):
            first = part.iloc[0]
            count, n = (formats.count(first[key]) for key in ("nonfinite_failures", "failures"))
            label += " N" if first["nan_dominant"] else ""
            marks.append(f"{name} {count} of {n}{' (N)' if first['nan_dominant'] else ''}")
        known = {row["protection"]: row for _, row in part.iterrows()}
        for protection in protections:
            if (row := known.get(protection)) is not None:
                partial = "*" if row["unfinished"] or row["cells"] < most else ""
                rows.append([label, protection + partial, *_pass_cells(row, declared)])
            else:
                rows.append(
                    [
                        label,
                        protection,
                        "missing",
                        *[formats.ABSENT] * (2 * len(declared.events) + 1),
                    ]
                )
            label = ""
    what = "all models and OOD methods" if method == ALL else method
    title = f"{what}{'' if model == ALL else f', {model}'}: {layout.setting_title(tuple(setting))}"
    headers = ["pass", "protection", "correct"]
    for event in declared.events:
        headers += [event.short, f"{event.short} detected"]
    headers.append("overall")
    return Block(title, headers, rows, [f"Failures not finite: {', '.join(marks)}."])


def _pass_cells(row: pd.Series, declared: Declared) -> list[str]:
    cells = [layout.amount(row, declared.base or "done")]
    for event in declared.events:
        cells += [_left(row, event.name), layout.with_interval(row, f"{event.name}_accuracy")]
    return [*cells, layout.with_interval(row, "overall_accuracy")]


def _left(row: pd.Series, kind: str) -> str:
    left = layout.amount(row, f"{kind}_left")
    before = layout.amount(row, f"{kind}_failures")
    if row["protection"] == UNPROTECTED or not isinstance(left, Value):
        return left
    return Value(f"{left} / {before}", row.name, *left.columns, f"{kind}_failures")


def _percent(row: pd.Series, name: str) -> str:
    value = row.get(name, math.nan)
    return formats.ABSENT if math.isnan(value) else Value(formats.percent(value), row.name, name)


def _agreement(row: pd.Series, metric: str) -> str:
    text = row.get(f"agreement_{metric}", formats.ABSENT)
    return text if text == formats.ABSENT else Value(text, row.name, f"agreement_{metric}")


def _limits(row: pd.Series, metric: str) -> str:
    ends = f"{metric}_low", f"{metric}_high"
    if math.isnan(row[ends[0]]):
        return formats.ABSENT
    return Value(formats.span(*(row[end] for end in ends)), row.name, *ends)


def _images(row: pd.Series, metric: str) -> str:
    own = formats.count(row[f"{metric}_n"])
    if metric == "auroc":
        both = f"{own} + {formats.count(row['auroc_m'])}"
        return Value(both, row.name, "auroc_n", "auroc_m")
    return own if own == formats.ABSENT else Value(own, row.name, f"{metric}_n")

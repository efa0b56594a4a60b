"""Our figures beside the published ones, with a plain word on whether they agree."""

import math

import pandas as pd

from progip.analysis.campaign import SETTING, Campaign, by_group
from progip.analysis.estimates import UNPROTECTED, of_protection, summarise, with_unprotected
from progip.report import formats
from progip.report.layout import Block, Note, Section, Value, setting_title
from progip.report.published import progip as published

AGREES, LOWER, HIGHER, NOTHING = "agrees", "lower", "higher", "no data"
AGREEMENT_READING = (
    "Ours against the published figure: agrees where the 95 % intervals overlap (a published "
    "figure without n counts as exact), else lower or higher."
)
#: quantity -> how it is printed; those that say nothing of an unprotected system are left out there
QUANTITIES = {
    "originally_correct_rate": "originally correct, % of runs",
    "failure_rate": "failures left, % of correct runs",
    "classification_accuracy": "classification failures detected, %",
    "detection_accuracy": "ID/OOD failures detected, %",
    "overall_accuracy": "all failures detected, %",
}
HEADERS = ["quantity", "protection", "ours", "95 % interval", "n"]
HEADERS += ["published", "95 % interval", "n", "ours is"]


def agreement(low: float, high: float, other_low: float, other_high: float) -> str:
    """One of AGREES, LOWER, HIGHER (of the first interval), or NOTHING where a limit is missing."""
    if any(math.isnan(limit) for limit in (low, high, other_low, other_high)):
        return NOTHING
    return LOWER if high < other_low else HIGHER if low > other_high else AGREES


def beside_section(campaign: Campaign) -> Section:
    """The overall quantities of each setting with single flips beside the published ones."""
    kind = campaign.interval
    cells = with_unprotected(campaign.cells, campaign.kinds)
    ours = summarise(cells, [*SETTING, "protection"], kind, campaign.kinds)
    theirs = {
        row["protection"]: row
        for _, row in summarise(published.overall_counts(), ["protection"], kind).iterrows()
    }
    rows = []
    for _, row in ours.iterrows():
        paper = theirs.get(row["protection"])
        if paper is None or not published.shown(campaign, tuple(row[name] for name in SETTING)):
            continue
        for quantity in QUANTITIES:
            if row["protection"] == UNPROTECTED and of_protection(quantity):
                continue
            found: dict[str, object] = {name: row[name] for name in (*SETTING, "protection")}
            found["quantity"] = quantity
            ends = ("", "_low", "_high", "_n")
            found |= {f"ours{end}": row[f"{quantity}{end}"] for end in ends}
            found |= {f"published{end}": paper[f"{quantity}{end}"] for end in ends}
            limits = [side[f"{quantity}{end}"] for side in (row, paper) for end in ends[1:3]]
            found["agreement"] = agreement(*limits) if row[f"{quantity}_n"] else NOTHING
            rows.append(found)
    names = [*SETTING, "protection", "quantity", "ours", "published", "agreement"]
    data = pd.DataFrame(rows) if rows else pd.DataFrame(columns=names)
    blocks = []
    for setting, group in by_group(data, SETTING):
        notes: list[Note] = [_setup(campaign, setting), AGREEMENT_READING]
        blocks.append(Block(setting_title(setting), HEADERS, [*_lines(group)], notes, mixed=True))
    reading = "The publication's results per pass are figures without numbers, so there is nothing "
    reading += "to put beside ours; its 'N' is marked in ours by the same rule."
    nothing = "No published figure belongs to these networks, data, detectors and faults"
    nothing += "." if campaign.beside else "; report --beside puts them here all the same."
    notes = [reading if rows else nothing]
    blocks.append(Block("", notes=notes))
    source = "published_comparison.beside_section(campaign).data"
    return Section("published", "Beside the publication", blocks, data, source)


def differences(campaign: Campaign, setting: tuple[str, ...]) -> list[str]:
    """In what the campaign's setup differs from the publication's; empty where it does not."""
    dataset, ood, *_ = setting
    cells = campaign.cells
    here = cells[(cells[list(SETTING)] == list(setting)).all(axis=1)]
    found = []
    models = sorted(here["model"].unique())
    known = {model for model in models if _is_published(model)}
    if len(known) < len(models) or len(models) < 2:
        found.append(f"networks {', '.join(models)} instead of DenseNet-BC and ResNet-34")
    if dataset not in published.CIFAR10:
        found.append(f"{dataset} instead of CIFAR-10")
    elif dataset != "cifar10":
        found.append(f"a sample of CIFAR-10 ({dataset})")
    if ood not in published.IMAGENET_RESIZE:
        found.append(f"{ood} instead of ImageNet-resize")
    elif ood == "tiny_imagenet_npz":
        found.append(f"a sample of the OOD images ({ood})")
    if here["done"].sum() and int(here.groupby("protection")["done"].sum().max()) < published.RUNS:
        runs = int(here.groupby("protection")["done"].sum().max())
        found.append(f"{runs:,} runs per protection instead of {published.RUNS:,}")
    return found


def _is_published(model: str) -> bool:
    return published.base_metrics(model, "cifar10", "imagenet_resize", "odin") is not None


def _setup(campaign: Campaign, setting: tuple[str, ...]) -> str:
    found = differences(campaign, setting)
    if not found:
        return f"The setup is the publication's: {published.SETUP}."
    return (
        f"Not the publication's setup ({published.SETUP}), so read the comparison as orientation: "
        f"{'; '.join(found)}."
        + (" The comparison was asked for (--beside)." if campaign.beside else "")
    )


def _lines(group: pd.DataFrame) -> list[list[str]]:
    lines = []
    before = ""
    order = [*QUANTITIES].index
    ordered = group.sort_values("quantity", key=lambda names: names.map(order), kind="stable")
    for _, row in ordered.iterrows():
        label = QUANTITIES[row["quantity"]]
        cells = [_side(row, side) for side in ("ours", "published")]
        verdict = Value(row["agreement"], row.name, "agreement")
        lines.append(["" if label == before else label, row["protection"], *cells[0], *cells[1]])
        lines[-1].append(verdict)
        before = label
    return lines


def _side(row: pd.Series, side: str) -> list[str]:
    if math.isnan(row[side]):
        return [formats.ABSENT] * 3
    low, high = f"{side}_low", f"{side}_high"
    return [
        Value(formats.percent(row[side]), row.name, side),
        Value(formats.span(row[low], row[high]), row.name, low, high),
        Value(formats.count(row[f"{side}_n"]), row.name, f"{side}_n"),
    ]

"""How the numbers of a report were made: what ran, in its own words, and how it was counted."""

import importlib
import re
from typing import Any

import pandas as pd

from progip import records
from progip.analysis.campaign import Campaign
from progip.analysis.manifests import part
from progip.described import WORKS, cited, said_by
from progip.outcomes.ood_verdict import OODVerdict
from progip.passes import is_pass, place_of
from progip.report import layout
from progip.report.layout import Block, Note, Section
from progip.report.published import progip as published
from progip.report.sections.coverage import coverage_notes
from progip.report.sections.tables import ESTIMANDS, failure_words

#: of the statistics; key -> what is cited
STATISTICS = {
    "ProGIP": WORKS["ProGIP"],
    "Wilson": "Wilson: Probable inference, the law of succession, and statistical inference. "
    "JASA 22, 1927, 209-212. https://doi.org/10.1080/01621459.1927.10502953",
    "Clopper": "Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case "
    "of the binomial. Biometrika 26, 1934, 404-413. https://doi.org/10.1093/biomet/26.4.404",
    "Newcombe": "Newcombe: Improved confidence intervals for the difference between binomial "
    "proportions based on paired data. Statistics in Medicine 17, 1998, 2635-2650; and, for the "
    "AUROC, Statistics in Medicine 25, 2006, 559-573.",
    "Hanley": "Hanley, McNeil: The meaning and use of the area under a receiver operating "
    "characteristic (ROC) curve. Radiology 143, 1982, 29-36.",
    "McNemar": "McNemar: Note on the sampling error of the difference between correlated "
    "proportions or percentages. Psychometrika 12, 1947, 153-157.",
    "Holm": "Holm: A simple sequentially rejective multiple test procedure. Scandinavian Journal "
    "of Statistics 6, 1979, 65-70.",
    "Cochran": "Cochran: Sampling Techniques. 3rd edition, Wiley, 1977.",
    "Sarndal": "Sarndal, Swensson, Wretman: Model Assisted Survey Sampling. Springer, 1992.",
    "Leveugle": "Leveugle, Calvez, Maistri, Vanhauwaert: Statistical fault injection: quantified "
    "error and confidence. DATE 2009. https://doi.org/10.1109/DATE.2009.5090716",
}
#: parts of a cell in the order in which the report speaks of them
PARTS = ("ood_method", "fault_model", "condition", "protection", "sampling", "stopping")


def methods_section(campaign: Campaign) -> Section:
    """What was run and how it was counted, with citations."""
    sentences, references = _said(campaign)
    notes: list[Note] = [
        " ".join([*sentences, *_undescribed(campaign)]),
        _runs(campaign),
        *coverage_notes(campaign),
        _outcomes(campaign),
        f"Sampling: {', '.join(_plans(campaign))}. {ESTIMANDS[campaign.estimand]}",
        _ended(campaign),
        _statistics(campaign),
    ]
    notes = [note for note in notes if note]
    keys = cited([str(note) for note in notes], {**STATISTICS, **references})
    data = pd.DataFrame({"key": list(keys), "reference": list(keys.values())})
    listed: list[Note] = [f"[{key}] {text}" for key, text in keys.items()]
    blocks = [Block("", notes=notes), Block("References", notes=listed)]
    return Section("methods", "Methods", blocks, data, "methods.methods_section(campaign).data")


def _accounts(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By part, what a cell's components say of themselves.

    A manifest of an earlier version does not say it; the classes of this package are asked then.
    """
    recorded = manifest.get("methods")
    if isinstance(recorded, list):
        return {str(entry["part"]): entry for entry in recorded}
    found = {}
    for name in PARTS:
        target = str(part(part(manifest, "config"), name).get("_target_", ""))
        module, _, cls = target.rpartition(".")
        if module.startswith("progip."):
            try:
                found[name] = said_by(getattr(importlib.import_module(module), cls))
            except (ImportError, AttributeError):  # of a version that had it elsewhere
                continue
    return found


def said_of(manifest: dict[str, Any], name: str) -> str:
    """What the component of a part says of itself, without the works it cites."""
    sentence = str(_accounts(manifest).get(name, {}).get("sentence", ""))
    return re.sub(r" ?\[[^]]*\]", "", sentence)


def _said(campaign: Campaign) -> tuple[list[str], dict[str, str]]:
    """Every sentence once, in the order of PARTS; the references of all, and of the outcome."""
    sentences: dict[str, None] = {}
    references: dict[str, str] = {}
    accounts = [_accounts(folder.manifest) for folder in campaign.folders]
    for name in PARTS:
        for account in accounts:
            entry = account.get(name, {"sentence": "", "references": {}})
            for sentence in re.split(r"(?<=[.]) (?=[A-Z])", entry["sentence"]):
                sentences.setdefault(sentence)
            references |= entry["references"]
    for account in accounts:
        references |= account.get("outcome", {}).get("references", {})
    return [sentence for sentence in sentences if sentence], references


def _undescribed(campaign: Campaign) -> list[str]:
    """Components without a sentence are named."""
    silent: dict[str, None] = {}
    for folder in campaign.folders:
        accounts, cell = _accounts(folder.manifest), folder.manifest["cell"]
        for name in ("ood_method", "fault_model", "protection"):
            if not accounts.get(name, {}).get("sentence") and cell[name] != "none":
                silent.setdefault(f"{name} {cell[name]}")
    if not silent:
        return []
    return [f"Without a description of their own: {', '.join(silent)}."]


def _verdicts(campaign: Campaign) -> bool:
    """Whether any detector of the campaign tells ID from OOD."""
    metrics = [part(folder.manifest, "base_metrics") for folder in campaign.folders]
    return any("auroc" in found for found in metrics) or not any(metrics)


def _runs(campaign: Campaign) -> str:
    cells = campaign.cells
    seeds = ", ".join(str(seed) for seed in sorted(cells["seed"].unique()))
    hit = sorted({name for name in cells["fault_pass"] if is_pass(name)}, key=place_of)
    where = " or ".join(name.replace("_", " ") for name in hit)
    stay = (cells["fault_pass"] == records.EVERY_PASS).any()
    maps = (
        "Faults in memory stay for a round of images, a fault map, and are there in every pass; "
        "intervals are those between maps. "
        if stay
        else ""
    )
    if not hit:
        return (
            f"{maps}Maps are drawn ahead from the seed ({seeds}), the cell and the number of the "
            "map, so all protections of a cell meet the same faults."
        )
    return (
        f"{maps}Each run's faults hit one pass ({where}). They are drawn ahead from the seed "
        f"({seeds}), the cell and the number of the run, so all protections of a cell meet the "
        "same faults."
    )


def _outcomes(campaign: Campaign) -> str:
    noticed = "Detected: the protection raises an alarm on the failing run; left: it does not."
    if campaign.declared.name != published.OUTCOME:
        accounts = [_accounts(folder.manifest) for folder in campaign.folders]
        said = {account.get("outcome", {}).get("sentence", "") for account in accounts}
        return " ".join([*sorted(said), failure_words(campaign.declared), noticed]).strip()
    if not _verdicts(campaign):
        return (
            "Originally correct: an image whose fault-free class is right. A failure is an "
            "originally correct run whose class changes (classification failure). " + noticed
        )
    return (
        f"{OODVerdict.sentence} {noticed} Thresholds come from clean calibration images and ranges "
        "from clean training images, never from the evaluation images that faults hit."
    )


def _plans(campaign: Campaign) -> list[str]:
    plans = {str(part(f.manifest, "sampling").get("name")) for f in campaign.folders} - {"None"}
    return sorted(plans) or ["not recorded"]


def _ended(campaign: Campaign) -> str:
    """What is said where runs were ended early; "" where none was."""
    found = [part(part(f.manifest, "sampling"), "roulette") for f in campaign.folders]
    chances = sorted({f"{rule['probability']:g}" for rule in found if rule})
    if not chances:
        return ""
    return (
        "Runs whose change became tiny, by limits learnt from the first runs of each cell, went on "
        f"with probability {' or '.join(chances)}; ended ones count as their image's fault-free "
        "execution, and a run that went on counts 1 over the probability as what it was and the "
        "rest, which is negative, as fault-free: a difference estimator, unbiased for every rate "
        "[Sarndal]."
    )


def _statistics(campaign: Campaign) -> str:
    kind = "Clopper and Pearson's [Clopper]" if "clopper" in campaign.interval else "Wilson's"
    text = f"Intervals are 95 % intervals: {kind} for proportions"
    cells = campaign.cells
    weighted = layout.weighted(cells)
    keys = [*(["Wilson"] if kind.startswith("Wilson") else []), *(["Cochran"] * weighted)]
    text += ", at the effective sample size where rows carry weights or strata" * weighted
    text += f" [{', '.join(keys)}]" if keys else ""
    if _verdicts(campaign):
        text += (
            "; AUROC by Newcombe's method 5 with the variance of Hanley and McNeil "
            "[Newcombe, Hanley]"
        )
    text += "."
    if campaign.cells["protection"].nunique() > 2:
        text += (
            " Protections are compared in pairs on the same failures: exact McNemar test, "
            "Newcombe's paired interval, Holm's correction within a setting [McNemar, Newcombe, "
            "Holm]."
        )
    return f"{text} How many runs a margin needs: [Leveugle]."

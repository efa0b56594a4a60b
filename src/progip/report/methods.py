"""How the numbers of a report were made: methods in words, citations, provenance."""

from typing import Any

import pandas as pd

from progip.report.campaign import DETECTOR, Campaign
from progip.report.layout import Block, Note, Section, Value
from progip.report.tables import ESTIMANDS

#: key -> what is cited
REFERENCES = {
    "ProGIP": "Joshi, So, Park, Ko, Jung, Ko, Hwang, Lee, Shrivastava: ProGIP: Protecting "
    "Gradient-based Input Perturbation Approaches for Out-of-distribution Detection From Soft "
    "Errors. ACM TECS 2025. https://doi.org/10.1145/3761796",
    "ODIN": "Liang, Li, Srikant: Enhancing the reliability of out-of-distribution image detection "
    "in neural networks. ICLR 2018. https://arxiv.org/abs/1706.02690",
    "Mahalanobis": "Lee, Lee, Lee, Shin: A simple unified framework for detecting "
    "out-of-distribution samples and adversarial attacks. NeurIPS 2018. "
    "https://arxiv.org/abs/1807.03888",
    "Ranger": "Chen, Li, Pattabiraman: A low-cost fault corrector for deep neural networks through "
    "range restriction. DSN 2021. https://doi.org/10.1109/DSN48987.2021.00018",
    "Wilson": "Wilson: Probable inference, the law of succession, and statistical inference. "
    "JASA 22, 1927, 209-212. https://doi.org/10.1080/01621459.1927.10502953",
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
    "Leveugle": "Leveugle, Calvez, Maistri, Vanhauwaert: Statistical fault injection: quantified "
    "error and confidence. DATE 2009. https://doi.org/10.1109/DATE.2009.5090716",
}


def methods_section(campaign: Campaign) -> Section:
    """What was run and how it was counted, with citations."""
    cells = campaign.cells
    plans = sorted({str(_part(f.manifest, "sampling").get("name")) for f in campaign.folders})
    plans = [plan for plan in plans if plan != "None"] or ["not recorded"]
    faults = ", ".join(sorted(cells["fault_model"].unique()))
    seeds = ", ".join(str(seed) for seed in sorted(cells["seed"].unique()))
    notes: list[Note] = [
        "A gradient-based input-perturbation detector runs a network forward, backward and forward "
        "again: the first pass gives the class, the gradient perturbs the image, the second pass "
        "gives the score that tells in-distribution (ID) from out-of-distribution (OOD) inputs "
        "[ODIN, Mahalanobis]. Each run injects one planned fault into exactly one of the three "
        f"passes, at random, by the fault model: {faults}. Every fault is drawn ahead from the "
        f"seed ({seeds}), the cell and the number of the run, so all protections of a cell watch "
        "the same faults.",
        "Originally correct: an ID image whose fault-free class and verdict are right, an OOD "
        "image whose fault-free verdict is. A failure is an originally correct run whose ID/OOD "
        "verdict changes (detection failure; a score that is not finite counts as changed) or, "
        "where the verdict stays ID, whose class changes (classification failure). The two do not "
        "overlap. Detected: the protection raises an alarm on the failing run; left: it does not "
        "[ProGIP].",
        "Thresholds come from clean calibration images and ranges from clean training images, "
        "never from the evaluation images that faults hit. ProGIP checks the largest gradient "
        "and the score; detection-only Ranger checks every activation [ProGIP, Ranger].",
        f"Sampling plan: {', '.join(plans)}. {ESTIMANDS[campaign.estimand]}",
        "Intervals are 95 % intervals: Wilson's for proportions, at the effective sample size "
        "where rows carry weights or strata [Wilson, Cochran]; AUROC by Newcombe's method 5 "
        "with the variance of Hanley and McNeil [Newcombe, Hanley]. Protections are compared in "
        "pairs on the same failures: exact McNemar test, Newcombe's paired interval, Holm's "
        "correction within a setting [McNemar, Newcombe, Holm]. How many runs a margin needs: "
        "[Leveugle].",
    ]
    references: list[Note] = [f"[{key}] {text}" for key, text in REFERENCES.items()]
    data = pd.DataFrame({"key": list(REFERENCES), "reference": list(REFERENCES.values())})
    blocks = [Block("", notes=notes), Block("References", notes=references)]
    return Section("methods", "Methods", blocks, data, "methods.methods_section(campaign).data")


def provenance_section(campaign: Campaign) -> Section:
    """Which code, machine, weights and data made each cell, from its manifest."""
    rows = []
    for folder in campaign.folders:
        manifest = folder.manifest
        cell = manifest["cell"]
        row: dict[str, Any] = {name: cell[name] for name in (*DETECTOR, "protection")}
        row |= {"folder": folder.name, "seed": manifest["seed"], "runs": manifest["runs"]}
        row |= {name: manifest.get(name) for name in ("config_hash", "commit", "weights_sha256")}
        row |= {f"threshold_{k}": v for k, v in _part(manifest, "thresholds").items()}
        row |= {f"data_{name}": value for name, value in _part(manifest, "data").items()}
        row |= {f"version_{name}": value for name, value in _part(manifest, "versions").items()}
        row |= {f"hardware_{name}": value for name, value in _part(manifest, "hardware").items()}
        rows.append(row)
    data = pd.DataFrame(rows)
    named = ["weights_sha256", *[c for c in data if str(c).startswith("data_")]]
    made = ["commit", *[c for c in data if str(c).startswith(("version_", "hardware_"))]]
    limits = [str(c) for c in data if str(c).startswith("threshold_")]
    blocks = [
        Block("Code and machine", ["", "", "cells"], [*_distinct(data, made)]),
        Block("Weights and data (fingerprints)", ["", "", "cells"], [*_distinct(data, named)]),
        _thresholds(data, limits),
        Block("", notes=["Every cell's configuration stands in its manifest.json."]),
    ]
    source = "methods.provenance_section(campaign).data"
    return Section("provenance", "Provenance", blocks, data, source)


def _part(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    part = manifest.get(name)
    return part if isinstance(part, dict) else {}


def _distinct(data: pd.DataFrame, names: list[Any]) -> list[list[str]]:
    """Every value that a column takes, and in how many cells."""
    lines = []
    for name in names:
        label = str(name).removeprefix("version_").removeprefix("hardware_")
        for value, group in data.groupby(name, sort=False):
            text = str(value) if len(str(value)) <= 44 else f"{str(value)[:16]}…"
            lines.append([label.replace("_", " "), Value(text, group.index[0], str(name))])
            lines[-1].append(str(len(group)))
            label = ""
    return lines


def _thresholds(data: pd.DataFrame, names: list[str]) -> Block:
    lines = []
    once = data.drop_duplicates([*DETECTOR, "protection", *names])
    for _, row in once.iterrows():
        values = [
            "" if pd.isna(row[name]) else Value(f"{row[name]:.6g}", row.name, name)
            for name in names
        ]
        lines.append([f"{row['model']}, {row['ood_method']}", row["protection"], *values])
    headers = [name.removeprefix("threshold_").replace("_", " ") for name in names]
    return Block("Thresholds", ["detector", "protection", *headers], lines)

"""Which code, machine, weights and data made each cell of a report."""

from typing import Any

import pandas as pd

from progip.analysis.campaign import DETECTOR, Campaign
from progip.analysis.manifests import part
from progip.report.layout import Block, Section, Value


def provenance_section(campaign: Campaign) -> Section:
    """Which code, machine, weights and data made each cell, from its manifest."""
    rows = []
    for folder in campaign.folders:
        manifest = folder.manifest
        cell = manifest["cell"]
        row: dict[str, Any] = {name: cell[name] for name in (*DETECTOR, "protection")}
        row |= {"folder": folder.name, "seed": manifest["seed"], "runs": manifest["runs"]}
        row |= {name: manifest.get(name) for name in ("config_hash", "commit", "weights_sha256")}
        row |= {f"threshold_{k}": v for k, v in part(manifest, "thresholds").items()}
        row |= {f"data_{name}": value for name, value in part(manifest, "data").items()}
        row |= {f"version_{name}": value for name, value in part(manifest, "versions").items()}
        row |= {f"hardware_{name}": value for name, value in part(manifest, "hardware").items()}
        rows.append(row)
    data = pd.DataFrame(rows)
    named = ["weights_sha256", *[c for c in data if str(c).startswith("data_")]]
    made = ["commit", *[c for c in data if str(c).startswith(("version_", "hardware_"))]]
    limits = [str(c) for c in data if str(c).startswith("threshold_")]
    blocks = [
        Block("Code and machine", ["", "", "cells"], [*_distinct(data, made)], mixed=True),
        Block(
            "Weights and data (fingerprints)",
            ["", "", "cells"],
            [*_distinct(data, named)],
            mixed=True,
        ),
        _thresholds(data, limits),
        Block("", notes=["Every cell's configuration stands in its manifest.json."]),
    ]
    source = "provenance.provenance_section(campaign).data"
    return Section("provenance", "Provenance", blocks, data, source)


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

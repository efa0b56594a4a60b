"""Failure rates by layer and groups of bits, as fine as the runs allow something to be said."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from progip.analysis.campaign import Campaign
from progip.analysis.manifests import format_of
from progip.analysis.observing import ExecutedRuns
from progip.analysis.site_rates import executions_of, rates_of

#: a 95 % interval wider than this says too little for its rate to be shown
WIDEST = 0.30
BY = ["model", "ood_method", "fault_pass"]
Groups = dict[int, str]


def bit_groups(fields: Sequence[dict[str, Any]]) -> list[Groups]:
    """Three ways to group the bits of a code, the finest first: bit by bit, in between, by field.

    In between, a field of more than 4 bits is its top bit alone (of an exponent it alone matters)
    and the rest in two halves.
    """
    single: Groups = {}
    between: Groups = {}
    whole: Groups = {}
    for part in fields:
        low, high, name = int(part["low"]), int(part["high"]), str(part["name"])
        single |= {bit: str(bit) for bit in range(low, high + 1)}
        whole |= dict.fromkeys(range(low, high + 1), f"{name} {_span(low, high)}")
        middle = low + (high - low) // 2
        parts = [(low, middle), (middle + 1, high - 1), (high, high)]
        for first, last in parts if high - low >= 4 else [(low, high)]:
            between |= dict.fromkeys(range(first, last + 1), f"{name} {_span(first, last)}")
    return [single, between, whole]


def _span(low: int, high: int) -> str:
    return f"{low}–{high}" if low < high else str(low)


def grouped_rates(campaign: Campaign, setting: tuple[str, ...], model: str) -> pd.DataFrame:
    """Failure rates before protection of one network by layer and group of bits.

    The finest grouping is taken in which at least half of the squares have an interval of at most
    WIDEST; where there is none, that by field.

    Returns:
        BY, layer, bits (the group), lowest (bit of it), what `site_rates` gives, and `says`:
        whether the interval is at most WIDEST wide. Empty where no run hit single bits.
    """
    hit = [e for e in executions_of(campaign, setting) if e.names["model"] == model]
    if not any((e.sites["bit"] >= 0).any() for e in hit if len(e.sites)):
        return pd.DataFrame()
    cells = {cell for execution in hit for cell in execution.cells}
    fields = format_of(campaign.folders[min(cells)].manifest)["fields"]
    found = pd.DataFrame()
    for groups in bit_groups(fields):
        found = _rates(hit, groups)
        if found["says"].mean() >= 0.5:
            break
    return found


def _rates(hit: Sequence[ExecutedRuns], groups: Groups) -> pd.DataFrame:
    executions = [
        replace(e, sites=e.sites.assign(bits=e.sites["bit"].map(groups)).dropna(subset=["bits"]))
        for e in hit
    ]
    data = rates_of(executions, [*BY, "layer", "bits"])
    first = {group: bit for bit, group in sorted(groups.items(), reverse=True)}
    order = {layer: place for e in executions for place, layer in enumerate(e.layers)}
    data.insert(len(BY), "layer_number", data["layer"].map(order))
    data.insert(len(BY) + 3, "lowest", data["bits"].map(first))
    data["says"] = (data["high"] - data["low"] <= WIDEST).to_numpy(bool)
    return data.sort_values([*BY, "layer_number", "lowest"], ignore_index=True)

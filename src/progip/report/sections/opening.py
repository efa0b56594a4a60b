"""What a campaign did, in three sentences: attacked, injected, counted as a failure."""

from collections.abc import Iterable

import pandas as pd

from progip.analysis.campaign import Campaign
from progip.analysis.estimates import UNPROTECTED, in_order
from progip.analysis.manifests import USUAL
from progip.records import EVERY_PASS
from progip.report.figures.base import readable
from progip.report.layout import Block, Section
from progip.report.sections.methods import said_of
from progip.report.sections.tables import failure_words


def opening_section(campaign: Campaign) -> Section:
    """Three sentences, for a reader who has seen nothing else."""
    said = {
        "attacked": _attacked(campaign),
        "injected": _injected(campaign),
        "failure": failure_words(campaign.declared),
    }
    data = pd.DataFrame({"what": list(said), "sentence": list(said.values())})
    source = "opening.opening_section(campaign).data"
    return Section("opening", "What was done", [Block("", notes=list(said.values()))], data, source)


def _attacked(campaign: Campaign) -> str:
    cells = campaign.cells
    formats = [name for name in cells["number_format"].unique() if name != USUAL["number_format"]]
    text = f"Attacked: {_listed(cells['model'])} on {_listed(cells['dataset'])} images"
    if others := [name for name in cells["ood_dataset"].unique() if name != "none"]:
        text += f" and out-of-distribution images of {_listed(others)}"
    if detectors := [name for name in cells["ood_method"].unique() if name != "none"]:
        text += f", guarded by the OOD detector{'s' * (len(detectors) > 1)} {_listed(detectors)}"
    if formats:
        text += f", computing in {_listed(cells['number_format'])}"
    names = in_order("protection", cells["protection"].unique())
    if protections := [name for name in names if name != UNPROTECTED]:
        verb = "watch over" if len(protections) > 1 else "watches over"
        text += f"; {_listed(protections)} {verb} it"
    return text + "."


def _injected(campaign: Campaign) -> str:
    cells = campaign.cells
    passes = [readable(name) for name in in_order("fault_pass", cells["fault_pass"].unique())]
    where = "" if passes == [EVERY_PASS] else f"; it hits the {_listed(passes, 'or')} pass"
    told = {said_of(folder.manifest, "fault_model") for folder in campaign.folders} - {""}
    names = _listed(cells["fault_model"])
    what = " ".join(sorted(told)).rstrip(".") or f"Faults of the kind {names}"
    distinct = cells.drop_duplicates([*_EXECUTION])["done"].sum()
    return f"Injected: {what[0].lower()}{what[1:]}{where}; {int(distinct):,} runs in all."


_EXECUTION = ("model", "dataset", "ood_dataset", "number_format", "condition", "population",
              "ood_method", "fault_model", "fault_pass", "seed", "correction")  # fmt: skip


def _listed(names: Iterable[str], last: str = "and") -> str:
    """One, two and three."""
    found = list(dict.fromkeys(str(name) for name in names))
    return f" {last} ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)

"""Which cells a report calls missing: not those that cannot be."""

from pathlib import Path

from campaign_factory import Write, runs
from test_estimates import row_of

from progip.analysis.campaign import Campaign
from progip.analysis.estimates import missing_cells
from progip.report.sections.tables import cells_section

ONE_PASS = {"passes": ["first_forward"], "shown": ["range_excess_first", "score"]}
THREE = {
    "passes": ["first_forward", "backward", "second_forward"],
    "shown": ["range_excess_first", "grad_max", "range_excess_second", "score"],
}
WATCHES = {
    "none": [],
    "progip": ["grad_max", "score"],
    "ranger": ["range_excess_first", "range_excess_second"],
}


def test_cells_that_cannot_be_are_not_missing(campaign: Path, write_cell: Write) -> None:
    def write(method: str, fault_pass: str, protection: str) -> None:
        fits = {**(ONE_PASS if method == "energy" else THREE), "watches": WATCHES[protection]}
        names = {"ood_method": method, "fault_pass": fault_pass, "protection": protection}
        write_cell(runs(harmless="."), manifest={"fits": fits}, **names)

    write("energy", "first_forward", "none")
    write("odin", "first_forward", "progip")
    write("odin", "second_forward", "ranger")
    found = Campaign.load(campaign)
    points = {
        (m["ood_method"], m["fault_pass"], m["protection"])
        for _, m in missing_cells(found.cells).iterrows()
    }
    odin = {("odin", f, p) for f in ("first_forward", "second_forward") for p in WATCHES}
    there = {("odin", "first_forward", "progip"), ("odin", "second_forward", "ranger")}
    assert points == {("energy", "first_forward", "ranger")} | (odin - there)
    data = cells_section(found).data
    assert "fits" not in data
    assert (row_of(data, ood_method="energy", protection="ranger")["status"]) == "missing"


def test_what_nothing_is_known_of_may_be_anything(campaign: Path, write_cell: Write) -> None:
    """Manifests of earlier versions do not say what a method has."""
    write_cell(runs(harmless="."), ood_method="energy", protection="none")
    write_cell(runs(harmless="."), ood_method="odin", fault_pass="backward", protection="none")
    points = {
        (m["ood_method"], m["fault_pass"])
        for _, m in missing_cells(Campaign.load(campaign).cells).iterrows()
    }
    assert points == {("energy", "backward"), ("odin", "first_forward")}

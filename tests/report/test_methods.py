"""Methods speak of what ran, and published figures stand only where they belong."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from campaign_factory import Write, runs

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.described import cited
from progip.protections.progip import ProGIP
from progip.protections.ranger import Ranger
from progip.report import Campaign, write_report
from progip.report.layout import plain
from progip.report.sections.methods import methods_section

ROOT = Path(__file__).resolve().parents[2]
TARGETS = {
    "ood_method": {"odin": "progip.ood_methods.odin.ODIN"},
    "protection": {
        "progip": "progip.protections.progip.ProGIP",
        "ranger": "progip.protections.ranger.Ranger",
    },
}


def methods_of(folder: Path) -> tuple[str, set[str]]:
    """The text of the section, and the keys of its references."""
    section = methods_section(Campaign.load(folder))
    text = " ".join(plain(note) for note in section.blocks[0].notes)
    keys = {plain(note).split("]")[0][1:] for note in section.blocks[1].notes}
    assert keys == set(section.data["key"])
    assert all(f"[{key}" in text or f", {key}" in text for key in keys)
    return text, keys


def ran(tmp_path: Path, *overrides: str) -> Path:
    cfg = composed([f"outputs={tmp_path}", "runs=30", *overrides], ROOT / "conf")
    run_cell(cell_settings(cfg), resolved(cfg))
    return tmp_path


def test_a_network_without_detector_or_protection(tmp_path: Path) -> None:
    chosen = ["ood_method=none", "ood_dataset=none", "protection=none", "population=id"]
    chosen += ["fault_model=six_bits", "pass=first_forward"]
    text, keys = methods_of(ran(tmp_path, *chosen))
    assert "runs forward once and gives a class; nothing judges its input" in text
    assert "flips several distinct bits of its code [Amarnath]" in text
    assert "hit one pass (first forward)" in text
    assert "whose class changes (classification failure)" in text
    for word in ("backward", "ODIN", "Ranger", "ProGIP", "AUROC", "McNemar", "verdict"):
        assert word not in text
    assert keys == {"Amarnath", "Wilson", "Leveugle"}


def test_a_detector_and_a_protection(tmp_path: Path) -> None:
    text, keys = methods_of(ran(tmp_path, "protection=ranger", "sampling=stratified"))
    assert text.startswith("A gradient-based input-perturbation detector runs a network forward")
    assert "[ODIN]. Each run flips one bit" in text
    assert "an activation leaves its range on clean training images [Ranger]" in text
    assert "Runs are drawn from strata" in text
    assert "Mahalanobis" not in text
    assert {"ODIN", "Ranger", "Cochran", "Hanley", "ProGIP"} <= keys


@dataclass(kw_only=True)
class Mine(Ranger):
    sentence: ClassVar[str] = "Mine raises an alarm at night [Night]."
    references: ClassVar[dict[str, str]] = {"Night": "A. Author: Nights. 2024."}


@dataclass(kw_only=True)
class Silent(ProGIP):
    pass


def test_a_component_of_ones_own(tmp_path: Path) -> None:
    own = "protection._target_=test_methods"
    ran(tmp_path, "protection=ranger", f"{own}.Mine", "protection.name=mine")
    text, keys = methods_of(ran(tmp_path, f"{own}.Silent", "protection.name=silent"))
    assert "Mine raises an alarm at night [Night]." in text
    assert "Without a description of their own: protection silent." in text
    assert "Night" in keys
    assert "Ranger" not in keys  # what a class inherits need not be true of it


def test_manifests_that_do_not_say_it(campaign: Path, write_cell: Write) -> None:
    for protection in ("progip", "ranger"):
        config: dict[str, Any] = {
            group: {"_target_": known[{"protection": protection}.get(group, "odin")]}
            for group, known in TARGETS.items()
        }
        write_cell(
            runs(harmless="."), protection=protection, ood_method="odin",
            manifest={"config": config},
        )  # fmt: skip
    text, keys = methods_of(campaign)
    assert {"ODIN", "ProGIP", "Ranger"} <= keys
    assert "Without a description of their own: fault_model single_bit_flip." in text


def test_the_share_of_the_network(campaign: Path, write_cell: Write) -> None:
    not_hit = [
        {"layer": f"attn.{i}", "kind": "Linear", "reason": "is never called", "macs": 5}
        for i in range(6)
    ]
    coverage = {"macs": 1000, "macs_hit": 314, "not_hit": not_hit}
    write_cell(runs(harmless="."), model="swin", manifest={"coverage": coverage})
    write_cell(runs(harmless="."), model="old")
    coverage = {"macs": 10, "macs_hit": 10, "not_hit": []}
    write_cell(runs(harmless="."), model="whole", manifest={"coverage": coverage})
    text, _ = methods_of(campaign)
    assert "hit make 31.4 % of the multiply-accumulates" in text
    assert (
        "Not hit: attn.0 (Linear), attn.1 (Linear), attn.2 (Linear), attn.3 (Linear) and 2" in text
    )
    assert "layer 'attn.0' is never called." in text
    assert "whole, first forward: the layers that faults can hit make 100.0 %" in text
    assert "old, " not in text
    printed = " ".join(write_report(campaign).split())
    assert "swin, first forward: the layers that faults can hit make 31.4 %" in printed
    assert "whole, first forward" not in printed  # the findings name what is left out


def test_passes_that_say_the_same_are_told_together(campaign: Path, write_cell: Write) -> None:
    whole = {"macs": 10, "macs_hit": 10, "not_hit": []}
    head = {"layer": "fc", "kind": "Linear", "reason": "is not part of the backward pass"}
    for method in ("odin", "mahalanobis"):
        for fault_pass in ("first_forward", "backward"):
            missed = [head] if (method, fault_pass) == ("mahalanobis", "backward") else []
            write_cell(
                runs(harmless="."), ood_method=method, fault_pass=fault_pass,
                manifest={"coverage": {**whole, "not_hit": missed}},
            )  # fmt: skip
    text, _ = methods_of(campaign)
    assert "digits_resnet, backward of odin, first forward: the layers" in text or (
        "digits_resnet, first forward, backward of odin: the layers" in text
    )
    assert "digits_resnet, backward of mahalanobis: the layers that" in text
    assert text.count("is not part of the backward pass") == 1


@pytest.mark.parametrize(
    ("names", "belongs"),
    [
        ({"model": "resnet34", "dataset": "cifar10", "ood_dataset": "tiny_imagenet_resize"}, True),
        ({"model": "resnet20", "dataset": "cifar10", "ood_dataset": "tiny_imagenet_resize"}, False),
        ({"model": "resnet34", "dataset": "digits", "ood_dataset": "tiny_imagenet_resize"}, False),
        ({"model": "resnet34", "dataset": "cifar10", "ood_dataset": "svhn"}, False),
        ({"model": "resnet34", "dataset": "cifar10", "ood_dataset": "tiny_imagenet_resize",
          "ood_method": "energy"}, False),
    ],
)  # fmt: skip
def test_published_figures_where_they_belong_or_on_request(
    campaign: Path, write_cell: Write, names: dict[str, str], belongs: bool
) -> None:
    for protection in ("none", "progip"):
        write_cell(runs("..x", "x.x", harmless="." * 9), protection=protection, **names)
    text = write_report(campaign)
    page = (campaign / "report" / "report.md").read_text()
    assert ("publ." in text) == belongs
    assert ("quantities agree" in text) == belongs
    assert ("No published figure belongs to these networks" in page) != belongs
    text = write_report(campaign, beside=True)
    page = (campaign / "report" / "report.md").read_text()
    assert "progip, publ." in text
    assert "The comparison was asked for (--beside)" in page


def test_citations_are_found_in_brackets() -> None:
    works = {"A": "a", "B": "b", "C": "c"}
    assert cited(["x [A] y [B, D].", "C"], works) == {"A": "a", "B": "b"}

"""The page: whole, readable without eyes or network, and every number traced to its source."""

import re
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from campaign_factory import Write, runs, writer_to
from page_reader import Page

from progip import records
from progip.report import formats, write_report


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, three passes, both populations, three protections; names with % _ & < in."""
    campaign = tmp_path_factory.mktemp("page") / "campaign"
    write_cell = writer_to(campaign)
    watched = (("none", "....."), ("progip", "xxxx."), ("ra_n&ger", "xx.x."))
    grid = product(("odin", "maha_50%&<b>"), records.PASSES, records.POPULATIONS, watched)
    for number, (method, fault_pass, population, (protection, seen)) in enumerate(grid):
        write_cell(
            runs(detection=seen, harmless="." * 95, nonfinite_gradient=True),
            ood_method=method,
            fault_pass=fault_pass,
            population=population,
            protection=protection,
            folder=f"{number}",
        )
    write_report(campaign, beside=True, interval="clopper_pearson")
    (campaign.parent / "outputs").symlink_to(campaign.parent)  # as the page's queries name it
    return campaign


@pytest.fixture(scope="module")
def page(full: Path) -> Page:
    return Page((full / "report" / "report.html").read_text())


def code(page: Page, section: str, number: int = 0) -> str:
    return [e["text"] for e in page.all("pre") if e["section"] == section][number]


def printed(value: object) -> set[str]:
    """What a number of a CSV may look like on the page."""
    if isinstance(value, str):
        return {value, f"{value[:16]}…"}
    number = float(value)  # type: ignore[arg-type]
    found = {f"{number:.6g}", str(value)}
    if not np.isnan(number):
        found |= {formats.count(number)}
        if 0 <= number <= 1:
            found |= {formats.percent(number), formats.percent(number, 1)}
    return found


def test_every_number_is_what_its_query_gives(
    full: Path, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full.parent)
    frames: dict[str, pd.DataFrame] = {}
    traced = [e for e in page.elements if "data-csv" in e]
    for element in traced:
        name = element["section"]
        assert element["data-csv"] == f"{name}.csv"
        if name not in frames:
            *setup, last = code(page, name).splitlines()
            scope: dict = {}
            exec("\n".join(setup), scope)
            frames[name] = eval(last, scope)
            stored = pd.read_csv(full / "report" / f"{name}.csv")
            assert len(stored) == len(frames[name])
        for column in element["data-column"].split(" "):
            value = frames[name].loc[int(element["data-row"]), column]
            found = [text for text in printed(value) if text in element["text"]]
            assert found, (name, element["data-row"], column, value, element["text"])
    assert set(frames) >= {"summary", "base_metrics", "overall", "published", "per_pass"}
    for cell in page.all("td"):  # and no number of these tables stands there without
        if cell["section"] in frames and cell["section"] not in ("provenance", "cells"):
            assert "data-csv" in cell or not re.search(r"\d", cell["text"]), cell


@pytest.mark.parametrize("section", ["overall", "per_pass"])
def test_counts_are_those_of_the_raw_rows(
    full: Path, page: Page, section: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full.parent)
    scope: dict = {}
    exec(code(page, section, 1), scope)
    counts = scope["counts"]
    stored = pd.read_csv(full / "report" / f"{section}.csv")
    whole = stored["model"] == "(all)" if "model" in stored else stored["source"] == "campaign"
    stored = stored[whole].set_index(counts.index.names)
    for key, row in counts.iterrows():
        mine = stored.loc[[key]].iloc[0]
        for kind in ("done", "originally_correct", "classification_left", "detection_left"):
            assert mine[kind] == row[kind]


def test_the_page_needs_nothing_else(full: Path, page: Page) -> None:
    text = (full / "report" / "report.html").read_text()
    assert len(text) < 2_000_000
    (script,) = page.all("script")
    assert not re.search(r"\b(fetch|import|XMLHttpRequest|eval)\b", script["text"])
    assert "@import" not in text
    assert "url(" not in text
    for element in page.elements:
        for name in ("src", "href", "srcset", "data"):
            address = element.get(name) or ""
            local = address.startswith(("data:", "#")) or not address
            assert local or (element["tag"] == "a" and address.startswith("https://")), address
    targets = {e["id"] for e in page.elements if e.get("id")}
    assert len(targets) == len([e for e in page.elements if e.get("id")])
    links = [e["href"] for e in page.all("a") if e.get("href", "").startswith("#")]
    assert {link[1:] for link in links} <= targets


def test_the_page_can_be_read_without_eyes_and_without_a_mouse(page: Page) -> None:
    (html,), (main,), (nav,) = page.all("html"), page.all("main"), page.all("nav")
    assert html["lang"] == "en"
    assert nav["aria-label"]
    first = page.all("a")[0]
    assert first["href"] == f"#{main['id']}"
    assert page.all("meta", name="viewport")
    assert [h["text"] for h in page.all("h1")] == ["Fault-injection campaign campaign"]
    assert [h["text"] for h in page.all("h2")[:2]] == ["What was done", "Findings"]
    for image in page.all("img"):
        assert len(image["alt"]) > 30
    assert len(page.all("img")) == len(page.all("figure")) == len(page.all("figcaption")) >= 4
    tables = page.all("table")
    assert len(page.all("caption")) == len(tables)
    assert {h["scope"] for h in page.all("th")} == {"col", "row"}
    for box in [e for e in page.elements if "scroll" in (e.get("class") or "").split()]:
        assert (box["tabindex"], box["role"]) == ("0", "region")
        assert box["aria-label"]


def test_names_are_text_not_markup(page: Page) -> None:
    assert not page.all("b")
    titles = " ".join(h["text"] for h in page.all("h3"))
    assert "maha_50%&<b>" in titles


def test_what_is_unfinished_or_missing_is_said_first(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x.", harmless="."), protection="progip", planned=10)
    write_cell(runs(detection="..", harmless="."), fault_pass="backward")
    write_cell([], protection="progip", fault_pass="second_forward", planned=10)
    write_report(campaign, beside=True, interval="clopper_pearson")
    page = Page((campaign / "report" / "report.html").read_text())
    first = page.all("li")[len([e for e in page.all("li") if "nav" in e["around"]])]
    assert first["text"].startswith("Unfinished: 1 of 3 cells finished, 6 of 23 runs done.")
    assert "missing" in first["text"]
    idle = [e for e in page.all("td") if e["section"] == "per_pass" and e["text"] == "–"]
    assert idle
    for element in [e for e in page.elements if e.get("data-csv") == "per_pass.csv"]:
        stored = pd.read_csv(campaign / "report" / "per_pass.csv").loc[int(element["data-row"])]
        assert stored["done"] > 0  # what has not run has no number

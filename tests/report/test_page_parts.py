"""What the page begins with, its ranked tables, its map and its figures: against the raw rows."""

from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from campaign_factory import Row, Write, runs, writer_to
from page_reader import Page
from scipy.stats import binomtest

from progip.analysis.bit_groups import bit_groups
from progip.number_formats.fp32 import FP32
from progip.report import Campaign, write_report
from progip.report.formats import percent
from progip.report.layout import left_out

LAYERS = tuple(f"features.{number}.conv" for number in range(100))
EACH = 5  # runs of every layer and bit: too few for one bit, enough for a group of them


def hits(layers: tuple[str, ...]) -> list[Row]:
    """Each bit of each layer equally often; bit 30 always fails, bit 28 once in the first layer."""
    rows: list[Row] = []
    for layer, bit, number in product(layers, range(32), range(EACH)):
        fails = bit == 30 or (layer == layers[0] and bit == 28 and number == 0)
        rows.append(
            {"run_id": len(rows), "alarm": False, "originally_correct": True,
             "classification_failure": fails, "layer": layer, "bit": bit}
        )  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    campaign = tmp_path_factory.mktemp("deep") / "campaign"
    write = writer_to(campaign)
    rows = hits(LAYERS)
    write(rows)
    write([row | {"alarm": row["bit"] == 30} for row in rows], protection="progip")
    write_report(campaign, beside=False)
    return campaign / "report"


@pytest.fixture(scope="module")
def page(deep: Path) -> Page:
    return Page((deep / "report.html").read_text())


def interval(failures: int, n: int) -> tuple[float, float]:
    found = binomtest(failures, n).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def lines(page: Page, section: str) -> list[str]:
    """The text of each row of the tables of a section, without their heads."""
    return [
        e["text"].strip()
        for e in page.all("tr")
        if e["section"] == section and "tbody" in e["around"]
    ]


def test_it_begins_with_what_was_attacked_injected_and_counted(page: Page) -> None:
    said = [e["text"] for e in page.all("p") if e["section"] == "opening"][:3]
    assert [text.split()[0] for text in said] == ["Attacked:", "Injected:", "A"]
    for word in ("digits_resnet", "digits", "digits_unseen", "odin", "progip"):
        assert word in said[0]
    assert "first forward" in said[1]
    assert f"{len(hits(LAYERS)):,} runs in all" in said[1]  # once, whoever watches them
    assert "failure is" in said[2]
    first = page.all("figure")[0]
    assert first["section"] == "opening"
    assert first["id"] == "figure-overview-drawing"


def test_points_of_figures_say_their_values(deep: Path, page: Page) -> None:
    stored = pd.read_csv(deep / "overview.csv")
    said = [e["text"] for e in page.all("title") if e["section"] == "opening"]
    assert len(said) == len(stored) == 2
    for text, (_, row) in zip(said, stored.iterrows(), strict=True):
        low, high = interval(int(row["left"]), int(row["n"]))
        for number in (row["estimate"], low, high):
            assert percent(number) in text
    every = [e for e in page.all("circle") if e.get("class") == "mark"]
    assert len(every) > len(said)
    assert all(float(e["cx"]) > 0 and float(e["cy"]) > 0 for e in every)


def test_bits_are_ranked_with_rates_and_intervals(deep: Path, page: Page) -> None:
    found = lines(page, "ranked_bits")
    assert len(found) == 32  # without the script, too, all are there
    n = EACH * len(LAYERS)
    for rank, (bit, failures) in enumerate([(30, n), (28, 1), (31, 0)], start=1):
        assert found[rank - 1].startswith(f"{rank}{bit}")
        low, high = interval(failures, n)
        assert f"{failures} / {n}" in found[rank - 1]
        assert percent(low) in found[rank - 1]
        assert percent(high) in found[rank - 1]
    short = (deep / "report.md").read_text().split("Vulnerability by bit")[1]
    assert "2 of 32 bits with a failure" in short  # on paper only those that fail


def test_layers_are_ranked_and_all_are_there(page: Page) -> None:
    found = lines(page, "layers")
    assert len(found) == len(LAYERS)
    assert LAYERS[0] in found[0]
    low, high = interval(EACH + 1, EACH * 32)
    assert percent(low) in found[0]
    assert percent(high) in found[0]


@pytest.mark.parametrize(
    ("failing", "printed", "said"),
    [
        (0, 0, "None of 32 bits has a failure; on the page and in x.csv are all."),
        (3, 3, "3 of 32 bits with a failure; printed are those, on the page and in x.csv are all."),
        (9, 5, "9 of 32 bits with a failure; printed are the first 5, on the page and in x.csv"
               " are all."),
        (32, 32, "32 of 32 bits with a failure."),
    ],
)  # fmt: skip
def test_what_a_ranked_table_leaves_out_is_said(failing: int, printed: int, said: str) -> None:
    assert left_out(failing, 32, "bits", printed, "x") == said


def test_tables_sort_and_filter_only_where_there_is_something_to(page: Page) -> None:
    by_section = {
        e["section"]: (e.get("class") or "").split()
        for e in page.all("table")
        if e["section"] in ("ranked_bits", "layers", "per_pass", "overall")
    }
    assert by_section["ranked_bits"] == by_section["layers"] == ["sortable", "filterable"]
    assert "filterable" not in by_section["per_pass"]
    assert "sortable" not in by_section["overall"]  # its rows are different quantities
    assert not page.all("button")  # the script makes them: without it nothing is there in vain
    assert not [e for e in page.elements if "hidden" in e]


def test_the_map_groups_bits_and_hatches_what_says_nothing(deep: Path, page: Page) -> None:
    found = [e for e in page.all("td") if e["section"] == "map"]
    stored = pd.read_csv(deep / "map.csv")
    groups = list(dict.fromkeys(bit_groups(FP32.described()["fields"])[1].values()))
    assert sorted(stored["bits"].astype(str).unique()) == sorted(groups)
    assert len(found) == len(stored) == len(groups) * len(LAYERS)
    heads = [e["text"] for e in page.all("th", scope="row") if e["section"] == "map"]
    assert heads == list(LAYERS)  # in the order of the network, not of the alphabet
    for square in found:
        row = stored.loc[int(square["data-row"])]
        low, high = interval(int(row["failures"]), int(row["correct"]))
        hatched = high - low > 0.30
        assert (square["class"] == "few") == hatched
        expected = f"{row['failures']}/{row['correct']}" if hatched else percent(row["estimate"], 1)
        assert square["text"] == expected
        assert percent(high) in square["title"]
    assert {e["class"] for e in found} == {"few", "s0", "s4"}  # 1 of 15 is shade 4: up to 15 %
    top = stored[(stored["lowest"] == 30) & (stored["layer"] == LAYERS[7])].iloc[0]
    assert (top["failures"], top["correct"]) == (EACH, EACH)


@pytest.mark.parametrize(("right", "warned"), [(19, True), (20, False)])
def test_rarely_correct_runs_are_warned_of(
    campaign: Path, write_cell: Write, right: int, warned: bool
) -> None:
    write_cell(runs(harmless="." * right, wrong="." * (100 - right)))
    found = [text for text in Campaign.load(campaign).warnings if "less than a fifth" in text]
    assert len(found) == warned
    if warned:
        assert found[0].startswith("only 19 of 100 runs of digits_resnet")
        write_report(campaign, beside=False)
        page = Page((campaign / "report" / "report.html").read_text())
        assert "less than a fifth" in page.all("aside")[0]["text"]

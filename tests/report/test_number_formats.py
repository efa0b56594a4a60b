"""Reports of campaigns in several number formats: every number is of its own format."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.report import Campaign
from progip.report.figures.number_formats import number_formats
from progip.report.figures.sweep import sweep
from progip.report.sections.layers import layers_section

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("fp32", "integer", "fixed_point", "bf16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("formats")
    chosen = ["ood_method=none", "ood_dataset=none", "protection=none", "runs=500",
              "outcome=loss", "probes=[loss,confidence]"]  # fmt: skip
    for name in FORMATS:
        cfg = composed([f"outputs={outputs}", f"number_format={name}", *chosen], ROOT / "conf")
        run_cell(cell_settings(cfg), resolved(cfg))
    return outputs / "campaign"


@pytest.fixture(scope="module")
def campaign(folder: Path) -> Campaign:
    return Campaign.load(folder)


@pytest.fixture(scope="module")
def rows(folder: Path) -> pd.DataFrame:
    parts = []
    for path in folder.rglob("part-*.parquet"):
        if not any(part.startswith("_") for part in path.relative_to(folder).parts):
            parts.append(pq.ParquetFile(path).read().to_pandas())
    return pd.concat(parts)


def failed(rows: pd.DataFrame) -> pd.Series:
    return rows["mismatch"] | rows["nonfinite_loss"]


def test_failures_by_field_are_those_of_each_format(campaign: Campaign, rows: pd.DataFrame) -> None:
    section = layers_section(campaign)
    assert section is not None
    wanted = rows[failed(rows)].groupby(["number_format", "layer", "field"]).size()
    assert {"sign", "integer", "exponent"} <= set(wanted.index.get_level_values("field"))
    for (name, layer, field), count in wanted.items():
        here = section.data[
            (section.data["number_format"] == name) & (section.data["layer"] == layer)
        ]
        assert here[f"{field}_failures_by_field"].tolist() == [count], (name, layer, field)
    assert section.data.filter(like="_by_field").sum().sum() == wanted.sum()
    headers = next(block.headers for block in section.blocks if "integer_8" in block.title)
    assert {"sign", "integer"} <= {*headers}
    assert not {"exponent", "fraction"} & {*headers}


def test_the_figure_adds_up_to_the_rates(campaign: Campaign, rows: pd.DataFrame) -> None:
    (figure,) = number_formats(campaign)
    data = figure.data.set_index("number_format")
    rates = failed(rows).groupby(rows["number_format"]).mean()
    assert data["estimate"].to_dict() == pytest.approx(rates.to_dict())
    parts = data.filter(regex="^in_").fillna(0).sum(axis=1)
    assert parts.to_dict() == pytest.approx(rates.to_dict())
    signs = (failed(rows) & (rows["field"] == "sign")).groupby(rows["number_format"]).mean()
    assert data["in_sign"].fillna(0).to_dict() == pytest.approx(signs.to_dict())
    means = rows["delta_loss_capped"].groupby(rows["number_format"]).mean()
    assert data["delta_loss_capped"].to_dict() == pytest.approx(means.to_dict())
    figure.draw(figure.data)
    strange = figure.data.rename(columns={"in_sign": "in_parity"})
    drawing = figure.draw(strange)
    assert "parity" in [text.get_text() for text in drawing.legends[0].get_texts()]


def test_the_sweep_tells_formats_apart(campaign: Campaign) -> None:
    (figure,) = sweep(campaign)
    found = set(figure.data["model"])
    assert {f"digits_resnet{more}" for more in ("", " bf16", " integer_8")} <= found


def test_one_format_needs_no_comparison(folder: Path, tmp_path: Path) -> None:
    alone = next(path for path in folder.iterdir() if "integer" in path.name)
    assert number_formats(Campaign.load(alone)) == []

"""The runtime table from measurements whose ratios are known by arithmetic."""

import json
from pathlib import Path
from typing import Any

import pytest
from campaign_factory import Write, runs

from progip.errors import ProgipError
from progip.report import write_report
from progip.report.published import progip as published
from progip.report.runtime_table import write_table
from progip.report.sections.runtime import runtime_sections


def variant(protection: str, form: str, wall: float, processor: float) -> dict[str, Any]:
    """Pairs that all have the same ratio, whatever the machine did meanwhile."""
    base = [1000.0, 2000.0, 4000.0] * 7
    return {
        "protection": protection,
        "range_checks": form,
        "wall": [[b, b * wall] for b in base],
        "processor": [[b, b * processor] for b in base],
    }


def measurement(folder: Path, model: str, method: str, progip: float, **more: Any) -> None:
    measured = {
        "kind": "runtime", "schema_version": 1, "model": model, "dataset": "cifar10",
        "ood_dataset": "svhn", "ood_method": method, "batch": 1, "device": "cpu", "threads": 1,
        "hardware": {"processor": "Abacus", "cores": 4, "gpu": None}, "versions": {"torch": "9"},
        "variants": [
            variant("none", "", 1.0, 1.0),
            variant("progip", "", progip, 1.0025),
            variant("ranger", "fused", 1.25, 1.2),
            variant("ranger", "per_layer", 2.75, 2.5),
        ],
        **more,
    }  # fmt: skip
    (folder / "runtime").mkdir(exist_ok=True)
    name = f"{model}-{method}-{measured['batch']}.json"
    (folder / "runtime" / name).write_text(json.dumps(measured))


def test_the_table_holds_the_medians_and_the_publication(tmp_path: Path) -> None:
    measurement(tmp_path, "densenet_bc_100_12", "odin", 1.004)
    measurement(tmp_path, "mine", "mahalanobis", 1.006)
    (plain,) = runtime_sections(tmp_path)  # one of the two networks is not theirs
    assert not any("Published" in str(note) for note in plain.blocks[0].notes)
    (section,) = runtime_sections(tmp_path, beside=True)
    block = section.blocks[0]
    assert block.title == "1 image a call, Abacus (4 cores), 1 thread, torch 9"
    assert block.headers == [
        "", "unprotected again", "progip", "ranger, fused", "ranger, per layer",
    ]  # fmt: skip
    lines = [row[0] for row in block.rows]
    assert lines[:2] == ["densenet_bc_100_12, odin: 2 ms", "· wall, %"]
    assert lines[len(lines) // 2] == "mine, mahalanobis: 2 ms"
    first = dict(zip(lines[: len(lines) // 2], (row[1:] for row in block.rows), strict=False))
    assert first["· wall, %"] == ["100.00", "100.40", "125.00", "275.00"]
    assert block.rows[2][1:3] == ["100.00–100.00", "100.40–100.40"]
    assert first["· processor, %"] == ["100.00", "100.25", "120.00", "250.00"]
    assert first["· published, %"] == ["–", "100.74", "264.79", "264.79"]
    assert first["· extra µs, wall / processor"][1] == "8 / 5"  # .4 and .25 % of 2 ms
    assert first["· pairs"] == ["21"] * 4
    assert block.rows[-3][1:] == ["–"] * 4  # the publication does not have this network
    again, progip, fused, per_layer = block.notes
    assert "100.00 [100.00, 100.00] % wall" in again
    assert "Published" not in again
    assert "100.50 [100.50, 100.50] % wall" in progip
    assert "mean over 2 networks x method" in progip
    assert "Published: 100.81 %" in progip
    assert progip.endswith("ours is below it (wall).")
    assert "ours is below it" in fused
    assert "ours is above it" in per_layer
    row = section.data[(section.data.model == "mine") & (section.data.protection == "progip")]
    assert row["wall_ratio"].item() == pytest.approx(1.006)
    assert row["wall_extra_us"].item() == pytest.approx(12.0)
    assert row["published_ratio"].isna().item()


def test_batch_sizes_have_tables_of_their_own(tmp_path: Path) -> None:
    measurement(tmp_path, "mine", "odin", 1.004)
    measurement(tmp_path, "mine", "odin", 1.004, batch=32)
    (section,) = runtime_sections(tmp_path)
    titles = [block.title.split(",")[0] for block in section.blocks if block.rows]
    assert titles == ["1 image a call", "32 images a call"]


def test_published_means_are_those_of_its_rows() -> None:
    for name, mean in published.RUNTIME_MEAN.items():
        rows = [row[name] for row in published.RUNTIME.values()]
        assert sum(rows) / len(rows) == pytest.approx(mean, abs=6e-5)
    assert published.runtime("DenseNet-BC-100-12", "ODIN")["progip"] == 1.0074
    assert published.runtime("vgg16", "odin") == {}


def test_written_beside_the_numbers(tmp_path: Path) -> None:
    measurement(tmp_path, "mine", "odin", 1.004)
    assert "100.40" in write_table(tmp_path)
    assert "progip |" in (tmp_path / "runtime" / "runtime.md").read_text()
    assert "wall_ratio_low" in (tmp_path / "runtime" / "runtime.csv").read_text()


def test_a_campaign_folder_that_holds_measurements(campaign: Path, write_cell: Write) -> None:
    write_cell(runs(detection="x."))
    assert "Runtime" not in write_report(campaign)
    measurement(campaign, "mine", "odin", 1.004)
    text = write_report(campaign)
    assert "· published, %" in text
    assert max(map(len, text.splitlines()[:-2])) <= 120
    assert "100.40" in (campaign / "report" / "report.md").read_text()
    assert (campaign / "report" / "runtime.csv").exists()


def test_without_measurements(tmp_path: Path) -> None:
    assert runtime_sections(tmp_path) == []
    with pytest.raises(ProgipError, match="python -m progip runtime makes one"):
        write_table(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "cell"},
        {"schema_version": 2},
        {"variants": [{"protection": "progip", "range_checks": "", "wall": [[1, 2]] * 3}]},
        {"variants": [variant("progip", "", -1.0, 1.0)]},
        {"variants": [variant("progip", "", 1.0, 1.0) | {"wall": [[1, 2]] * 9 + [[1, -2]]}]},
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    measurement(tmp_path, "mine", "odin", 1.004, **change)
    with pytest.raises(ProgipError, match=r"mine-odin-1.json cannot be read"):
        runtime_sections(tmp_path)

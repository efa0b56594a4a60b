"""All files of a campaign have one schema, whatever its cells do; ``Campaign.rows`` reads them."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from progip.campaign.columns import every_column, result_schema, stored
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.report import Campaign

ROOT = Path(__file__).resolve().parents[2]
EVERY_PROBE = "probes=[confidence,energy,largest_logit,logits_digest,loss,top_five]"
#: of a cell without detector, with faults in weights, in another number format
BARE = ["ood_method=none", "protection=none", "ood_dataset=none"]
MIXED = {
    "detector": [],
    "corrected": ["protection=ranger_clip"],
    "rate": [*BARE, "fault_model=six_bits", "outcome=sdc", "number_format=bf16"],
    "weights": [*BARE, "fault_model=parameter_bit", "pass=all", "sizing.maps=1"],
}
FEW = ["dataset.limit=260", "batch_size=8"]  # 10 images beside those of the thresholds


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    for overrides in MIXED.values():
        cfg = composed([f"outputs={folder}", "runs=16", *FEW, *overrides], ROOT / "conf")
        run_cell(cell_settings(cfg), resolved(cfg))
    return folder / "campaign"


def shards(campaign: Path) -> list[Path]:
    return [p for p in campaign.rglob("part-*.parquet") if not p.parent.name.startswith("_")]


@pytest.mark.parametrize("group", ["outcome", "protection", "fault_model"])
def test_every_component_of_progip_is_in_the_one_schema(group: str, tmp_path: Path) -> None:
    groups = tmp_path / "groups.csv"
    groups.write_text("\n".join(["class_index,group,supergroup", *(f"{i},g,A" for i in range(8))]))
    common = [EVERY_PROBE, f"groups={groups}", "population=id", "protection=none"]
    single = composed(common, ROOT / "conf")
    many = composed([*common, "fault_model=six_bits"], ROOT / "conf")  # asks corrections for more
    maps = composed([*common, "fault_model=parameter_bit", "pass=all"], ROOT / "conf")
    own = []
    for path in sorted((ROOT / "conf" / group).glob("*.yaml")):
        component, schemas = OmegaConf.load(path), []
        if "defaults" in component:
            continue  # another one's options
        if path.stem == "listed":
            component.file = "faults.csv"  # not read before a run
        if path.stem == "metadata_bit":
            single.number_format = OmegaConf.load(ROOT / "conf/number_format/block_fp.yaml")
        for cfg in (many, maps, single):
            cfg[group] = component
            with contextlib.suppress(ProgipError):  # it may not fit this kind of fault
                schemas.append(result_schema(cell_settings(cfg)))
        assert schemas, path
        assert {field for schema in schemas for field in schema} <= set(every_column()), path
        own += [set(schema) for schema in schemas]
    assert any(names != own[0] for names in own)  # components do differ in their columns


def test_files_of_mixed_cells_have_one_schema(campaign: Path) -> None:
    found = shards(campaign)
    assert len(found) == len(MIXED)
    for path in found:
        assert pq.read_schema(path).equals(every_column())
        manifest = json.loads((path.parent / "manifest.json").read_text())
        produced = {column["name"] for column in manifest["columns"]}
        table = pq.read_table(path)
        for name, column in zip(table.schema.names, table.columns, strict=True):
            assert column.null_count == (0 if name in produced else len(table)), name


def test_columns_of_users_come_last() -> None:
    own = pa.table({"run_id": pa.array([0, 1]), "warmth": pa.array([0.5, 0.25])})
    table = stored(own)
    assert table.schema.names == [*every_column().names, "warmth"]
    assert table["warmth"].to_pylist() == [0.5, 0.25]
    assert table["hits"].null_count == 2


def test_rows_of_a_campaign(campaign: Path) -> None:
    loaded = Campaign.load(campaign, outcome="ood_verdict", estimand="layer_mean")
    rows = loaded.rows()
    assert len(rows) == loaded.cells["done"].sum() == 16 * 2 + 10
    assert "sdc" not in rows  # no cell of this outcome produces it
    assert list(rows["run_id"][:16]) == list(range(16))
    corrected = rows["protection"] == "ranger_clip"
    assert (rows["corrected"].isna() == ~corrected).all()
    assert (rows["corrected"].dtype, rows["flagged"].dtype) == (pd.Int64Dtype(), pd.BooleanDtype())
    for path in shards(campaign):  # value by value what the files hold
        whole = pq.read_table(path).to_pandas()
        here = rows[rows["cell"] == whole["cell"][0]].reset_index(drop=True)
        for name in ["neuron", "faulty_class", "faulty_score", "alarm_stage", "value_after"]:
            if len(here):
                np.testing.assert_array_equal(here[name].to_numpy(), whole[name].to_numpy())


def test_chosen_columns(campaign: Path) -> None:
    loaded = Campaign.load(campaign, outcome="ood_verdict", estimand="layer_mean")
    rows = loaded.rows(columns=["map_id", "protection"])
    assert list(rows) == ["map_id", "protection"]
    assert rows["map_id"].notna().sum() == 10
    with pytest.raises(ProgipError, match=r"no cell produces the column hitz; there are: cell, "):
        loaded.rows(columns=["hitz"])


@pytest.fixture
def older(campaign: Path, tmp_path: Path) -> Path:
    """A finished cell as older versions wrote it: without columns that it does not produce."""
    cfg = composed([f"outputs={tmp_path}", "runs=16", *FEW], ROOT / "conf")
    settings = cell_settings(cfg)
    folder = run_cell(settings, resolved(cfg))
    for path in folder.glob("part-*"):
        pq.write_table(pq.read_table(path).select(result_schema(settings).names), path)
    return folder


def test_a_folder_of_an_older_version_is_read_and_continued(older: Path, tmp_path: Path) -> None:
    (first,) = older.glob("part-*")
    before = first.read_bytes()
    rows = Campaign.load(tmp_path / "campaign").rows()
    cfg = composed([f"outputs={tmp_path}", "runs=24", *FEW], ROOT / "conf")
    run_cell(cell_settings(cfg), resolved(cfg))
    assert first.read_bytes() == before
    longer = Campaign.load(tmp_path / "campaign").rows()
    assert len(longer) == 24
    pd.testing.assert_frame_equal(longer[:16], rows)
    assert pq.read_schema(older / "part-0000000016-0000000024.parquet").equals(every_column())


def test_a_file_that_cannot_be_read_is_named(older: Path, tmp_path: Path) -> None:
    loaded = Campaign.load(tmp_path / "campaign")
    (path,) = older.glob("part-*")
    path.write_bytes(b"PAR1")
    with pytest.raises(ProgipError, match=path.name):
        loaded.rows()

"""Whole cells of faults that stay in memory, and of networks in other number formats."""

import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from progip.analysis.weight_faults import agreement, by_fault, joined
from progip.campaign.replay import manifest_of, replay
from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.cli import parser
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.report import write_report

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ("fault_model=parameter_bit", "pass=all", "fault_model.bits=[29,30,31]")
CLASSIFY = ("ood_method=none", "ood_dataset=none", "protection=none", "outcome=criticality",
            "probes=[logits_digest]")  # fmt: skip
IMAGES = 393  # evaluation images of the digits


def settings_of(tmp_path: Path, *overrides: str) -> CellSettings:
    given = [f"outputs={tmp_path}", "batch_size=16", *overrides]
    return cell_settings(composed(given, ROOT / "conf"))


def test_a_cell_is_the_same_however_it_is_run(run, tmp_path: Path) -> None:
    shared = (*WEIGHTS, "fault_model.images_per_map=30", "self_check=0.1")
    once = run("sizing.maps=8", *shared, "name=once")
    assert len(once) == 240
    run("sizing.maps=3", "shard_size=40", *shared, "name=parts")  # ends within a shard and a map
    again = run("sizing.maps=8", "shard_size=70", *shared, "name=parts")
    assert_frame_equal(again, once)
    whole = run("sizing.maps=8", *shared, "name=whole", "executor=reference")
    assert_frame_equal(whole, once)
    assert (once["map_id"] == once["run_id"] // 30).all()
    assert (once["sample_index"] == once["run_id"] % IMAGES).all()
    per_map = once.groupby("map_id")[["layer", "neuron", "bit", "value_after"]].nunique()
    assert (per_map == 1).all().all()
    assert set(once["target"]) == set(once["parameter"]) == {"weight"}
    assert set(once["field"]) <= {"sign", "exponent"}
    settings = settings_of(tmp_path, "sizing.maps=8", *shared, "name=once")
    for number in (0, 77, 239):
        assert not replay(settings, number).differences
    write_report(tmp_path / "once")
    text = (tmp_path / "once" / "report" / "report.html").read_text()
    assert "intervals are those between maps" in text
    assert "hit one pass" not in text


def test_a_rate_of_zero_is_the_network_without_faults(run) -> None:
    rows = run("fault_model=bit_error_rate", "fault_model.rate=0", "pass=all", "sizing.maps=2")
    assert len(rows) == 2 * IMAGES
    assert not rows[["class_changed", "verdict_changed", "classification_failure"]].any().any()
    assert (rows["faulty_score"] == rows["golden_score"]).all()
    assert (rows["hits"] == 0).all()


def test_a_rate_keeps_one_map_for_a_round(run, tmp_path: Path) -> None:
    shared = ("fault_model=bit_error_rate", "fault_model.rate=1e-4", "pass=all")
    rows = run(*shared, "sizing.maps=3", "protection=ranger")
    assert (rows.groupby("map_id")["fault_digest"].nunique() == 1).all()
    assert rows["fault_digest"].nunique() == 3
    assert rows["class_changed"].any()
    settings = settings_of(tmp_path, *shared, "sizing.maps=3", "protection=ranger")
    assert not replay(settings, 500).differences
    corrected = run(*shared, "sizing.maps=3", "protection=ranger_clip", "name=clip")
    assert (corrected["fault_digest"] == rows["fault_digest"]).all()
    text = write_report(tmp_path / "campaign")
    assert f"3 fault maps of {IMAGES} images" in text
    assert "the weights are poor" not in text


def test_a_planned_campaign_over_codes_of_weights(run, tmp_path: Path) -> None:
    plan = ("sampling=stratified", "sampling.by=[bit]", "sampling.pilot=100",
            "fault_model.images_per_map=5")  # fmt: skip
    rows = run("fault_model=parameter_bit", "pass=all", "number_format=integer",
               "number_format.quantise=[weights,outputs]", "sizing.maps=180", *plan)  # fmt: skip
    assert set(rows["bit"]) == set(range(8))
    assert set(rows["field"]) == {"integer", "sign"}
    pilot, later = rows["weight"][:500], rows["weight"][500:]
    assert not set(pilot.round(9)) & set(later.round(9))  # what the pilot showed decides
    manifest = manifest_of(next((tmp_path / "campaign").glob("*/*/*/progip")))
    assert manifest["sampling"]["pilot_runs"] == 500
    assert manifest["runs_per_map"] == 5
    assert manifest["number_format"]["bits"] == 8
    assert "effective" in write_report(tmp_path / "campaign")
    run("fault_model=parameter_bit", "pass=all", "sizing.maps=2", "protection=ranger", *plan[3:])
    assert "integer_8" in write_report(tmp_path / "campaign")  # the same weights, rounded or not


def test_a_list_is_executed_and_written(run, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    given.write_text(
        'Layer,TensorIndex,Bit\nlayer1.0.conv1,"(0, 1, 2, 2)",30\nlayer1.0.conv1,"(3, 1, 0, 2)",2\n'
    )
    listed = settings_of(tmp_path, "fault_model=listed", f"fault_model.file={given}", "pass=all",
                         *CLASSIFY)  # fmt: skip
    cell = run_cell(listed, {})
    assert sum(pq.read_metadata(p).num_rows for p in cell.glob("part*")) == 2 * IMAGES
    found = by_fault(cell)
    assert found["TensorIndex"].tolist() == ["(0, 1, 2, 2)", "(3, 1, 0, 2)"]
    assert (found[["masked", "non_critical", "critical"]].sum(axis=1) == IMAGES).all()
    own = tmp_path / "own.csv"
    found.to_csv(own, index=False)
    other = found.assign(critical=found["critical"] + [0, 3])
    other.to_csv(tmp_path / "other.csv", index=False)
    table = agreement(joined(own, tmp_path / "other.csv")).set_index("bits")
    assert table.loc["all", ["faults", "equal", "within", "largest"]].tolist() == [2, 1, 1, 3]
    unlike = found.assign(n_injections=5)
    unlike.to_csv(tmp_path / "unlike.csv", index=False)
    with pytest.raises(ProgipError, match="results of the same images"):
        joined(own, tmp_path / "unlike.csv")
    with pytest.raises(ProgipError, match="executed as it stands"):
        run("fault_model=listed", f"fault_model.file={given}", "pass=all", *CLASSIFY,
            "sampling=stratified", "sampling.by=[bit]", "name=planned")  # fmt: skip


@pytest.mark.parametrize(
    ("code", "fault_pass"),
    [("bf16", "backward"), ("bf16", "first_forward"), ("block_fp", "second_forward"),
     ("fixed_point", "first_forward")],
)  # fmt: skip
def test_activations_in_other_formats(run, code: str, fault_pass: str) -> None:
    more = ["number_format.width=10"] if code == "block_fp" else []
    rows = run(f"number_format={code}", *more, f"pass={fault_pass}", "runs=60", "self_check=1")
    assert (rows["value_before"] != rows["value_after"]).mean() > 0.9
    if code == "bf16":
        words = rows["value_after"].to_numpy().view(np.uint32)
        assert (words & 0xFFFF == 0).all()
        assert rows["bit"].max() <= 15
    null = run(f"number_format={code}", *more, f"pass={fault_pass}", "runs=20",
               "fault_model=none", "name=nothing")  # fmt: skip
    assert (null["faulty_score"] == null["golden_score"]).all()


def test_metadata_scales_a_whole_block(run) -> None:
    rows = run("number_format=block_fp", "number_format.width=10", "fault_model=metadata_bit",
               "pass=first_forward", "runs=40")  # fmt: skip
    assert set(rows["field"]) == {"metadata"}
    assert rows["bit"].max() <= 2
    flipped = rows["value_before"].astype(int) ^ rows["value_after"].astype(int)
    assert (flipped == 2 ** rows["bit"].astype(int)).all()
    assert (rows["faulty_score"] != rows["golden_score"]).any()


def test_metadata_of_a_weight_scales_its_block_for_a_round(run, tmp_path: Path) -> None:
    shared = ("number_format=block_fp", "number_format.width=10", "number_format.block=channel",
              "number_format.quantise=[weights]", "fault_model=parameter_metadata_bit", "pass=all",
              "fault_model.images_per_map=25", "sizing.maps=6", "self_check=1")  # fmt: skip
    rows = run(*shared)
    assert set(rows["field"]) == {"metadata"}
    assert set(rows["target"]) == {"weight"}
    flipped = rows["value_before"].astype(int) ^ rows["value_after"].astype(int)
    assert (flipped == 2 ** rows["bit"].astype(int)).all()
    assert (rows.groupby("map_id")[["layer", "neuron", "bit"]].nunique() == 1).all().all()
    assert (rows["faulty_score"] != rows["golden_score"]).any()
    assert_frame_equal(run(*shared, "name=whole", "executor=reference"), rows)
    assert not replay(settings_of(tmp_path, *shared), 140).differences
    assert "metadata" in write_report(tmp_path / "campaign")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (("fault_model=parameter_bit", "pass=backward"), "add pass=all"),
        (("pass=all",), "choose the pass"),
        (("sizing.maps=3",), "no fault map"),
        ((*WEIGHTS, "sizing.maps=0"), "at least one fault map"),
        ((*WEIGHTS, "sizing.maps=2", "sizing.margin=0.1"), "give one"),
        (("number_format=integer", "fault_model.bits=[9]"), "must lie in 0..7"),
        (("number_format=bf16", "fault_model.fields=[scale]"), "no field scale"),
        (("number_format=ieee", "number_format.exponent=1"), "no normal numbers"),
        (("number_format=fixed_point", "number_format.fraction=40"), "fraction"),
        (("number_format=integer", "number_format.scale=0"), "scale=0"),
        (("fault_model=metadata_bit",), "no metadata"),
        (
            ("fault_model=parameter_metadata_bit", "pass=all", "number_format=integer"),
            "the weight of layer 'conv1' is held in 'fp32', .* with weights in number_format.quant",
        ),
        (("number_format=block_fp", "number_format.width=10", "number_format.block=tensor"), "mix"),
    ],
)
def test_bad_input(run, overrides: tuple[str, ...], why: str) -> None:
    with pytest.raises(ProgipError, match=why):
        run("runs=10", *overrides)


def test_tables_by_fault_need_single_faults(run, tmp_path: Path) -> None:
    run("runs=10", "pass=first_forward")
    with pytest.raises(ProgipError, match="not single faults of parameters"):
        by_fault(next((tmp_path / "campaign").glob("*/*/*/progip")))


def call(*words: str | Path) -> None:
    arguments = parser().parse_args(list(map(str, words)))
    arguments.action(arguments)


def test_commands_for_lists(run, tmp_path: Path, capsys) -> None:
    given, own = tmp_path / "given.csv", tmp_path / "own.csv"
    given.write_text('Layer,TensorIndex,Bit\nlayer1.0.conv1,"(0, 1, 2, 2)",30\n')
    call("import-faults", given, f"outputs={tmp_path}", "name=faults")
    said = capsys.readouterr().out
    assert f"1 faults in 1 parameters of digits_resnet, each on {IMAGES:,} images" in said
    words = shlex.split(said.split("run.py ")[1])
    run_cell(cell_settings(composed([*words, "batch_size=16"], ROOT / "conf")), {})
    call("export-faults", tmp_path / "faults", own)
    call("compare-faults", own, own)
    assert "1 faults written" in capsys.readouterr().out
    text = own.read_text()
    last = int(text.strip().rpartition(",")[2])
    (tmp_path / "other.csv").write_text(text.strip().rpartition(",")[0] + f",{last + 3}\n")
    with pytest.raises(SystemExit):
        call("compare-faults", own, tmp_path / "other.csv")

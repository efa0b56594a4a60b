"""What replay tells of a fault's way through the layers."""

from pathlib import Path

import pytest

from progip import records
from progip.campaign.replay import cell_of, replay, spread
from progip.config import cell_settings, composed
from progip.engine.layer_trace import LayerDifference
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("fault_pass", records.PASSES)
def test_the_faulty_layer_is_the_first_that_differs(run, tmp_path: Path, fault_pass: str) -> None:
    overrides = [f"pass={fault_pass}", "fault_model.bits=[22,31]", "runs=6"]
    rows = run(*overrides)
    cfg = composed([f"outputs={tmp_path}", "batch_size=16", *overrides], ROOT / "conf")
    for i, row in rows.iterrows():
        layers = replay(cell_settings(cfg), int(i)).layers
        here = [layer for layer in layers if layer.fault_pass == fault_pass]
        before = records.PASSES[: records.PASSES.index(fault_pass)]
        assert not any(layer.differing for layer in layers if layer.fault_pass in before)
        hit = next(layer for layer in here if layer.layer == row["layer"])
        change = abs(float(row["value_after"]) - float(row["value_before"]))
        if change:  # the sign of a zero is no difference
            assert next(layer for layer in here if layer.differing) == hit
            assert hit.differing == 1
        assert hit.largest == change


def test_no_fault_no_difference(run, tmp_path: Path) -> None:
    run("fault_model=none", "runs=2")
    cfg = composed([f"outputs={tmp_path}", "batch_size=16", "fault_model=none"], ROOT / "conf")
    result = replay(cell_settings(cfg), 1)
    assert not any(layer.differing for layer in result.layers)
    assert {layer.fault_pass for layer in result.layers} == set(records.PASSES)
    assert all("nothing differs" in line for line in spread(result.layers))


def test_where_a_fault_is_masked() -> None:
    def layers(fault_pass: str, *differing: int) -> list[LayerDifference]:
        names = ("conv1", "relu1", "linear", "logits")
        return [
            LayerDifference(fault_pass, name, 0, 9, n, float(n))
            for name, n in zip(names, differing, strict=True)
        ]

    told = spread(
        [
            *layers("first_forward", 0, 1, 0, 0),
            *layers("backward", 0, 1, 3, 1),
            *layers("second_forward", 0, 0, 0, 0),
        ]
    )
    assert told == [
        "first_forward: differs first in relu1; masked at linear, nothing differs from there on",
        "backward: differs first in relu1; it reaches the logits",
        "second_forward: nothing differs from golden: the perturbation takes the gradient's sign "
        "alone",
    ]


def test_a_cell_is_chosen_by_words_of_its_path(tmp_path: Path) -> None:
    for path in ("m-d-o/odin-flip/backward-id/progip", "m-d-o/odin-flip/backward-ood/progip"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "manifest.json").write_text('{"kind": "cell"}')
    one = tmp_path / "m-d-o/odin-flip/backward-id/progip"
    assert cell_of(one) == one
    assert cell_of(tmp_path, "backward-id") == cell_of(tmp_path, "odin id") == one
    with pytest.raises(ProgipError, match="2 cells fit"):
        cell_of(tmp_path, "progip")
    with pytest.raises(ProgipError, match="no cell fits"):
        cell_of(tmp_path, "back")
    with pytest.raises(ProgipError, match="holds no cell"):
        cell_of(tmp_path / "m-d-o/odin-flip/backward-id/progip" / "nothing")

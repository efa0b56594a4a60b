"""Bounded activations in whole cells: the same faults, both executors, bounds that are hit."""

import logging
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

from progip.campaign import subject
from progip.campaign.replay import replay
from progip.config import cell_settings, composed
from progip.errors import ProgipError
from progip.report import write_report

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("protection.images=60", "protection.validation=40")
FEW = SMALL[:1]  # ranger_bound chooses nothing
SEARCHES = {
    "ranger_bound": (),
    "ft_clipact": ("protection.rates=[1e-5,1e-4]", "protection.maps=1", "protection.rounds=1",
                   "protection.least_rounds=1"),
    "fitact": ("protection.epochs=2",),
    "proact": ("protection.epochs=1", "protection.decays=[4e-3]", "protection.warm_up=0"),
}  # fmt: skip
MEMORY = ("fault_model=bit_error_rate", "fault_model.rate=1e-4", "pass=all", "sizing.maps=2",
          "fault_model.images_per_map=40")  # fmt: skip


def test_the_four_meet_the_faults_of_the_unprotected_network(run, tmp_path: Path) -> None:
    bare = run(*MEMORY, "protection=none")
    for name, options in SEARCHES.items():
        small = FEW if name == "ranger_bound" else SMALL
        rows = run(*MEMORY, f"protection={name}", *small, *options)
        assert (rows["fault_digest"] == bare["fault_digest"]).all()
        assert (rows["alarm"] == rows["flagged"]).all()
        assert (rows["corrected"] > 0).any()
        subject._ready.clear()
    text = write_report(tmp_path / "campaign")
    for name in SEARCHES:
        assert name in text
    methods = (tmp_path / "campaign/report/report.md").read_text()
    assert "FitAct gives every neuron a bound" in methods
    assert "fine-grained post-trainable activation functions" in methods


@pytest.mark.parametrize("name", ["ranger_bound", "fitact"])
def test_both_executors_give_the_same_rows(run, name: str) -> None:
    small = FEW if name == "ranger_bound" else SMALL
    shared = (f"protection={name}", *small, *SEARCHES[name], "self_check=0.1")
    for kind, faults in {
        "activations": ("runs=60", "fault_model.bits=[28,29,30]"),
        "weights": ("fault_model=parameter_bit", "pass=all", "sizing.maps=4",
                    "fault_model.images_per_map=20", "fault_model.bits=[29,30]"),
    }.items():  # fmt: skip
        fast = run(*faults, *shared, f"name={kind}")
        slow = run(*faults, *shared, f"name={kind}_slow", "executor=reference")
        assert_frame_equal(fast, slow)


def test_bounds_themselves_can_be_hit(run, tmp_path: Path) -> None:
    hit = ("fault_model=parameter_bit", "pass=all", "fault_model.layer_types=[ReLU]",
           "fault_model.parameters=[bound_0]", "fault_model.bits=[30]", "sizing.maps=6",
           "fault_model.images_per_map=30", "protection=ranger_bound",
           "protection.granularity=channel", *FEW, "self_check=0.1")  # fmt: skip
    rows = run(*hit)
    assert set(rows["parameter"]) == {"bound_0"}
    assert set(rows["target"]) == {"bound_0"}
    assert all("relu" in layer for layer in rows["layer"])
    # a bound above 2 becomes tiny with its bit 30, and what passes the channel becomes 0
    tiny = rows["value_after"] < 1e-30
    assert tiny.any()
    assert (rows.loc[tiny, "value_before"] > 2).all()
    assert (rows.loc[tiny, "corrected"] > 0).mean() > 0.5
    # one below 2 becomes huge: nothing is bounded, nothing changes
    assert not rows.loc[~tiny, "class_changed"].any()
    slow = run(*hit, "name=slow", "executor=reference")
    assert_frame_equal(rows, slow)
    settings = cell_settings(
        composed([f"outputs={tmp_path}", "batch_size=16", *hit], ROOT / "conf")
    )
    assert not replay(settings, 100).differences


def test_without_the_protection_there_is_no_bound_to_hit(run) -> None:
    with pytest.raises(ProgipError, match="no layer of type ReLU"):
        run("fault_model=parameter_bit", "pass=all", "fault_model.layer_types=[ReLU]",
            "fault_model.parameters=[bound_0]", "sizing.maps=1", "protection=none")  # fmt: skip


def test_bounds_of_one_number_format_are_not_those_of_another(
    run, caplog: pytest.LogCaptureFixture
) -> None:
    """What was learnt is kept by content: two widths of one format are two networks."""
    shared = (*MEMORY, "protection=ranger_bound", "protection.images=60",
              "number_format=fixed_point", "number_format.quantise=[outputs]")  # fmt: skip
    caplog.set_level(logging.INFO)
    run(*shared, "name=wide")
    subject._ready.clear()
    run(*shared, "number_format.word=8", "number_format.fraction=6", "name=narrow")
    subject._ready.clear()
    run(*shared, "name=wide_again")
    fits = [message for message in caplog.messages if "protection ranger_bound: fit" in message]
    assert [("loaded" in fit) for fit in fits] == [False, False, True]

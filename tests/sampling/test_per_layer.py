"""The same number of runs in every layer: size, evenness, and the mean over layers."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_fault_space import population

from progip.analysis.campaign import Campaign
from progip.analysis.estimates import summarise
from progip.campaign.runner import run_cell
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.sampling.per_layer import PerLayer

ROOT = Path(__file__).resolve().parents[2]


def test_layers_take_turns() -> None:
    plan, space = PerLayer(name="p", runs_per_layer=70), population()
    assert plan.size(space) == 210
    rows = plan.plan(space, 1, "k", 0, 210).to_pandas()
    counts = rows.groupby(["layer", "call"]).size()
    assert counts.tolist() == [70, 70, 70]
    assert (rows["weight"] == 1).all()  # the fault model chooses layers evenly, too
    for stop in (10, 100):  # wherever a campaign stops
        part = rows.iloc[:stop].groupby("stratum").size()
        assert part.max() - part.min() <= 1


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(ProgipError, match="runs_per_layer=0: give at least one run"):
        PerLayer(name="p", runs_per_layer=0)


def test_a_margin_beside_it_is_refused() -> None:
    cfg = composed(["sampling=per_layer", "sizing.margin=0.01"], ROOT / "conf")
    with pytest.raises(ProgipError, match="sampling=per_layer says itself how many runs"):
        cell_settings(cfg)


@pytest.mark.parametrize("weighting", ["layer", "neuron"])
def test_the_network_value_is_the_mean_over_layers(weighting: str, tmp_path: Path) -> None:
    chosen = ["ood_method=none", "ood_dataset=none", "protection=none", "outcome=sdc"]
    chosen += ["sampling=per_layer", "sampling.runs_per_layer=150", "fault_model.bits=[28,30]"]
    chosen += [f"fault_model.weighting={weighting}", f"outputs={tmp_path}"]
    cfg = composed(chosen, ROOT / "conf")
    cell = run_cell(cell_settings(cfg), resolved(cfg))
    rows: pd.DataFrame = pa.concat_tables(
        map(pq.read_table, sorted(cell.glob("part-*.parquet")))
    ).to_pandas()
    layers = rows.groupby("layer")["sdc"].agg(["mean", "size"])
    assert (layers["size"] == 150).all()
    assert len(rows) == 150 * len(layers)

    loaded = Campaign.load(tmp_path / "campaign", estimand="layer_mean")
    (row,) = summarise(loaded.cells, ["model", "protection"], "wilson", loaded.kinds).to_dict(
        "records"
    )
    assert row["sdc_rate"] == pytest.approx(layers["mean"].mean(), rel=1e-9)

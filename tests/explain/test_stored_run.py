"""The maps of stored runs against maps made by hand, from the row's own columns."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from progip.campaign.replay import manifest_of
from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.explain.ablation_cam import ablation_cam
from progip.explain.stored_run import explain
from progip.models.loading import load_network
from progip.report import write_report

CONF = Path(__file__).parents[2] / "conf"
LAYER = "layer3.0.relu2"


def cell(outputs: Path, *overrides: str) -> Path:
    given = [f"outputs={outputs}", "runs=40", "protection=none", "ood_method=none", "batch_size=8"]
    cfg = composed([*given, "ood_dataset=none", "outcome=sdc", *overrides], CONF)
    return run_cell(cell_settings(cfg), resolved(cfg))


def settings_of(folder: Path) -> CellSettings:
    settings = cell_settings(OmegaConf.create(manifest_of(folder)["config"]))
    settings.folder = folder
    return settings


def subject(settings: CellSettings, sample: int) -> tuple[nn.Module, Tensor]:
    dataset = settings.subject.dataset
    image = dataset.split("evaluation").take(np.array([sample]))
    return (
        load_network(settings.subject.model, image_shape=dataset.shape),
        image.tensor(dataset.mean, dataset.std),
    )


def test_runs_with_a_flipped_output(tmp_path: Path) -> None:
    """Faults before, in and behind the layer, put in by a hook of the test's own."""
    folder = cell(tmp_path)
    settings = settings_of(folder)
    rows = pq.read_table(next(folder.glob("part-*"))).to_pandas()
    rows = rows[np.isfinite(rows["value_after"]) & (rows["value_after"].abs() < 1e6)]
    chosen = [*rows[rows["layer"] == "linear"].index[:1], *rows[rows["bit"] > 22].index[:3]]
    for index in chosen:
        row = rows.loc[index]
        found = explain(settings, int(row["run_id"]))
        assert found.layer == LAYER
        network, image = subject(settings, row["sample_index"])
        label = int(row["golden_class"])
        expected = ablation_cam(network, LAYER, image, label)
        np.testing.assert_allclose(found.clean, expected, atol=1e-4)

        def put(module: nn.Module, args: object, output: Tensor, row: object = row) -> Tensor:
            changed = output.contiguous().clone()
            words = changed.flatten(1).view(torch.int32)
            mask = np.uint32(1 << int(row["bit"])).view(np.int32)  # type: ignore[index]
            words[:, int(row["neuron"])] ^= int(mask)  # type: ignore[index]
            return changed

        network.get_submodule(row["layer"]).register_forward_hook(put)
        np.testing.assert_allclose(
            found.faulty, ablation_cam(network, LAYER, image, label), atol=1e-4
        )
        np.testing.assert_array_equal(
            found.image[:, :, 0],
            settings.subject.dataset.split("evaluation").pixels[row["sample_index"], 0],
        )


def test_runs_with_a_weight_error_and_the_page(tmp_path: Path) -> None:
    folder = cell(tmp_path, "fault_model=parameter_bit", "pass=all", "fault_model.images_per_map=4")
    settings = settings_of(folder)
    rows = pq.read_table(next(folder.glob("part-*"))).to_pandas()
    row = rows[np.isfinite(rows["value_after"]) & (rows["value_after"].abs() < 1e3)].iloc[-1]
    found = explain(settings, int(row["run_id"]))
    network, image = subject(settings, row["sample_index"])
    weight = getattr(network.get_submodule(row["layer"]), row["parameter"]).detach()
    assert float(weight.view(-1)[row["neuron"]]) == row["value_before"]
    weight.view(-1)[row["neuron"]] = float(row["value_after"])
    expected = ablation_cam(network, LAYER, image, int(row["golden_class"]))
    np.testing.assert_allclose(found.faulty, expected, atol=1e-4)
    found.keep(folder)
    write_report(tmp_path / "campaign")
    page = (tmp_path / "campaign" / "report" / "report.html").read_text()
    assert f"run {found.run_id} of" in page
    assert (tmp_path / "campaign" / "report" / "explained-1.png").stat().st_size > 1000


def test_what_cannot_be_explained_is_named(tmp_path: Path) -> None:
    folder = cell(tmp_path)
    settings = settings_of(folder)
    for layer, message in (("conv9", "no such module"), ("linear", r"not maps \(n, channels")):
        with pytest.raises(ProgipError, match=message):
            explain(settings, 0, layer)
    with pytest.raises(ProgipError, match="there is no run 40"):
        explain(settings, 40)
    other = cell(tmp_path / "b", "pass=backward", "ood_method=odin", "outcome=ood_verdict",
                 "ood_dataset=digits_unseen")  # fmt: skip
    with pytest.raises(ProgipError, match="fault in the pass backward"):
        explain(settings_of(other), 0)


def test_a_missing_map_is_no_zero_map(tmp_path: Path) -> None:
    """A value that becomes infinite at the input of the layer leaves no map, and says so."""
    folder = cell(tmp_path, "fault_model.bits=[30]", "runs=60")
    rows = pq.read_table(next(folder.glob("part-*"))).to_pandas()
    huge = rows[(rows["layer"] == "linear") | (rows["value_after"].abs() > 1e37)]
    found = explain(settings_of(folder), int(huge["run_id"].iloc[0]))
    if found.faulty is None:
        assert np.isnan(found.overlap)
        assert found.frame()["faulty"].isna().all()
    else:
        assert torch.isfinite(torch.from_numpy(found.faulty)).all()
    assert found.clean is not None

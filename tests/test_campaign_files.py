"""Every file in campaigns/ composes; those at the published size have the published cells."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from progip.config import cell_settings, composed
from progip.datasets.npz import Npz

ROOT = Path(__file__).resolve().parent.parent
CAMPAIGNS = sorted(path.stem for path in (ROOT / "campaigns").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    groups = tmp_path / "data" / "groups"
    groups.mkdir(parents=True)
    for name, classes in (("cifar100", 100), ("imagenet", 1000)):
        rows = [f"{i},g{i % 7},{'AB'[i % 7 > 2]}" for i in range(classes)]
        text = "\n".join(["class_index,group,supergroup", *rows])
        (groups / f"{name}_groups.csv").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROGIP_DATA", "data")
    monkeypatch.setenv("PROJECT_ROOT", "root")


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_every_campaign_builds_its_cells(name: str) -> None:
    cfg = composed([], ROOT / "conf", campaign=name)
    assert cell_settings(cfg).runs == cfg.runs
    assert cfg.name in name
    swept = OmegaConf.load(ROOT / "campaigns" / f"{name}.yaml").hydra.sweeper.params
    for key, values in swept.items():
        for value in str(values).split(","):
            cell_settings(composed([f"{key}={value}"], ROOT / "conf", campaign=name))


@pytest.mark.parametrize(
    ("network", "weights"),
    [
        ("densenet_bc_100_12", "data/weights/densenet_bc_100_12_cifar10_lab.pth"),
        ("resnet34", "root/outputs/weights/resnet34-cifar10.safetensors"),
    ],
)
def test_the_published_size(network: str, weights: str) -> None:
    chosen = composed([f"network={network}"], ROOT / "conf", campaign="paper_cifar10")
    settings = cell_settings(chosen)
    subject, known, unknown = (
        settings.subject,
        settings.subject.dataset,
        settings.subject.ood_dataset,
    )
    assert (settings.runs, subject.model.weights) == (100_000, weights)
    assert isinstance(known, Npz)
    assert (known.test, known.calibration, known.limit) == (
        "cifar10/test_lossless_10000.npz", 1000, None,
    )  # fmt: skip
    assert isinstance(unknown, Npz)
    assert (unknown.test, unknown.calibration, unknown.limit) == (
        "tiny_imagenet/test_resize32_nearest_4000.npz", 1000, None,
    )  # fmt: skip
    assert OmegaConf.load(ROOT / "campaigns" / "paper_cifar10.yaml").hydra.sweeper.params == {
        "network": "densenet_bc_100_12,resnet34",
        "ood_method": "odin,mahalanobis",
        "pass": "first_forward,backward,second_forward",
        "population": "id,ood",
        "protection": "none,progip,progip_both,ranger",
    }

"""The same command after an edit: rows of an edited network never join its former self's."""

import json
from pathlib import Path

import pytest
import torture

from progip.analysis.campaign import Campaign
from progip.campaign.replay import replay
from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.config import cell_settings, composed, resolved
from progip.errors import ProgipError
from progip.report.status import load_status
from progip.storage import store
from progip.storage.crash_log import failures_recorded

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "mine_net.py": """
from dataclasses import dataclass
from mine_blocks import SCALE
from torch import nn
from progip.models.base import Model

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 4, 3), nn.ReLU()
        self.pool, self.flatten, self.fc = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 8)

    def forward(self, x):
        return self.fc(self.flatten(self.pool(self.relu(self.conv(x) * SCALE))))

@dataclass(kw_only=True)
class MyModel(Model):
    def network(self):
        return Net()

@dataclass(kw_only=True)
class Other(MyModel):
    pass
""",
    "mine_blocks.py": "SCALE = 1.0\n",
    "mine_guard.py": """
from dataclasses import dataclass
from progip.protections.progip import ProGIP

@dataclass(kw_only=True)
class MyGuard(ProGIP):
    pass
""",
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with these modules, on the path of the processes that start."""
    folder = tmp_path / "lab"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    return folder


def in_child(overrides: list[str], said: Path, replayed: int | None) -> None:
    cfg = composed(overrides, ROOT / "conf")
    settings = cell_settings(cfg)
    try:
        if replayed is None:
            with failures_recorded(settings.folder):
                run_cell(settings, resolved(cfg))
        else:
            said.write_text("; ".join(replay(settings, replayed).differences))
    except ProgipError as refusal:
        said.write_text(str(refusal))


def call(tmp_path: Path, *overrides: str, replayed: int | None = None) -> str:
    """A command in a process of its own; what it refuses, or the columns that do not replay."""
    small = ["model._target_=mine_net.MyModel", "model.weights=random", "executor=reference"]
    small += ["shard_size=20", "threads=1", f"outputs={tmp_path}/out"]
    said = tmp_path / "said"
    said.write_text("")
    process = torture.SERVER.Process(target=in_child, args=([*small, *overrides], said, replayed))
    process.start()
    process.join(240)
    assert process.exitcode == 0
    return said.read_text()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def rows(tmp_path: Path) -> dict[str, bytes]:
    """The rows below the results, judged and executed, file by file."""
    return {p.as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("part-*")}


def test_an_edited_network_cannot_continue_old_rows(tmp_path: Path, lab: Path) -> None:
    assert call(tmp_path, "runs=20") == ""
    before = rows(tmp_path)
    edit(lab / "mine_net.py", "self.relu(self.conv(x) * SCALE)", "self.conv(x).clamp(0, 5)")
    for runs in (20, 40):  # nor does it call a finished cell its own
        said = call(tmp_path, f"runs={runs}")
        assert f"mine_net (model, {lab.resolve()}/mine_net.py) was edited" in said
        assert "name=..." in said
        assert "\n" not in said
    assert rows(tmp_path) == before
    (cell,) = load_status(tmp_path / "out" / "campaign").cells
    assert (cell.state, cell.done) == ("done", 20)  # what is there is fine
    assert call(tmp_path, "runs=40", "name=edited") == ""
    edit(lab / "mine_net.py", "self.conv(x).clamp(0, 5)", "self.relu(self.conv(x) * SCALE)")
    assert call(tmp_path, "runs=40") == ""
    assert sum("/campaign/" in name and "/progip/" in name for name in rows(tmp_path)) == 2


def test_an_edited_module_that_the_networks_module_imports(tmp_path: Path, lab: Path) -> None:
    assert call(tmp_path, "runs=20") == ""
    before = rows(tmp_path)
    edit(lab / "mine_blocks.py", "1.0", "0.875")
    assert f"mine_blocks ({lab.resolve()}/mine_blocks.py) was edited" in call(tmp_path, "runs=40")
    assert rows(tmp_path) == before
    edit(lab / "mine_blocks.py", "0.875", "1.0  # as it was")
    edit(lab / "mine_net.py", "class Net(nn.Module):", 'class Net(nn.Module):\n    """Mine."""')
    assert call(tmp_path, "runs=40") == ""


def test_another_class_of_the_same_module(tmp_path: Path, lab: Path) -> None:
    assert call(tmp_path, "runs=20") == ""
    said = call(tmp_path, "runs=40", "model._target_=mine_net.Other")
    assert "model was mine_net.MyModel, is now mine_net.Other" in said


def test_an_edited_protection_refuses_its_own_cells_alone(tmp_path: Path, lab: Path) -> None:
    mine = ("protection._target_=mine_guard.MyGuard", "protection.name=mine")
    assert call(tmp_path, "runs=20", *mine) == ""
    edit(lab / "mine_guard.py", "    pass", "    def judge(self, *_):\n        raise ValueError")
    said = call(tmp_path, "runs=40", *mine)
    assert f"mine_guard (protection, {lab.resolve()}/mine_guard.py) was edited" in said
    assert call(tmp_path, "runs=20", "protection=ranger") == ""  # judges the executed runs


def test_rows_of_edited_code_are_replayed_with_what_the_edit_changed(
    tmp_path: Path, lab: Path
) -> None:
    assert call(tmp_path, "runs=20") == ""
    edit(lab / "mine_blocks.py", "1.0", "0.875")
    assert "faulty_score" in call(tmp_path, "runs=20", replayed=7)
    edit(lab / "mine_blocks.py", "0.875", "1.0")
    assert call(tmp_path, "runs=20", replayed=7) == ""


@pytest.fixture
def demo(tmp_path: Path) -> CellSettings:
    """A finished cell of the embedded demo."""
    cfg = composed([f"outputs={tmp_path}/out", "runs=20", "batch_size=16"], ROOT / "conf")
    settings = cell_settings(cfg)
    run_cell(settings, resolved(cfg))
    return settings


def rewrite(folder: Path, code: dict | None) -> None:
    manifest = json.loads((folder / store.MANIFEST).read_text())
    manifest["identity"].pop("code")
    if code is not None:
        manifest["identity"]["code"] = code
    store.write_json(folder / store.MANIFEST, manifest)


def test_folders_from_before_code_was_recorded_are_read_but_not_continued(
    demo: CellSettings, tmp_path: Path
) -> None:
    rewrite(demo.folder, None)
    rewrite(demo.execution_folder, None)
    assert replay(demo, 7).differences == []
    assert load_status(tmp_path / "out").cells[0].done == 20
    assert list(Campaign.load(tmp_path / "out").cells["done"]) == [20]
    with pytest.raises(store.OtherConfiguration, match=r"did not record the code.*progip 0.*name="):
        run_cell(demo, {})


def test_an_edited_class_of_progip_is_named(demo: CellSettings) -> None:
    code = json.loads((demo.folder / store.MANIFEST).read_text())["identity"]["code"]
    code["modules"]["progip.ood_methods.odin"] = "0" * 64
    del code["modules"]["progip.models.digits"]
    code["modules"]["lab.blocks"] = "0" * 64
    rewrite(demo.folder, code)
    with pytest.raises(store.OtherConfiguration) as caught:
        run_cell(demo, {})
    said = str(caught.value)
    assert "progip.ood_methods.odin (ood_method, " in said
    assert "odin.py) was edited" in said
    assert "lab.blocks (no file) is no longer used" in said
    assert "digits.py) is new" in said


def left_out(folder: Path) -> str:
    """What the report says of the one cell that it leaves out."""
    loaded = Campaign.load(folder)
    assert len(loaded.cells) == 1
    return next(text for text in loaded.warnings if text.startswith("left out: "))


def test_cells_of_different_code_are_not_added_up(demo: CellSettings, tmp_path: Path) -> None:
    cfg = composed([f"outputs={tmp_path}/out", "runs=20", "pass=backward"], ROOT / "conf")
    other = cell_settings(cfg)
    run_cell(other, resolved(cfg))
    assert len(Campaign.load(tmp_path / "out").cells) == 2
    code = json.loads((other.folder / store.MANIFEST).read_text())["identity"]["code"]
    code["modules"]["progip.models.resnet_cifar"] = "0" * 64
    rewrite(other.folder, code)
    assert "in the code of progip.models.resnet_cifar" in left_out(tmp_path / "out")
    assert len(Campaign.load(tmp_path / "out", allow_mixed=True).cells) == 2
    code["classes"]["model"] = "lab.Net"
    code["modules"] = {}
    rewrite(other.folder, code)
    assert "in the class of model (" in left_out(tmp_path / "out")


def test_the_code_that_made_the_rows_is_in_both_manifests(demo: CellSettings) -> None:
    cell, execution = (
        json.loads((folder / store.MANIFEST).read_text())["identity"]["code"]
        for folder in (demo.folder, demo.execution_folder)
    )
    assert set(cell["classes"]) - set(execution["classes"]) == {"protection", "outcome"}
    assert execution["modules"].items() < cell["modules"].items()

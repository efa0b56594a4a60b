"""Which source files name a cell's code, and what of them counts."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from progip.models.digits import DigitsResNet
from progip.models.resnet_cifar import BasicBlock
from progip.ood_methods.odin import ODIN
from progip.storage import source_code
from progip.storage.source_code import code_identity, digests, source_file

NET = '''"""A network."""
import numpy as np, torch.nn.functional as F
from torch import nn
from progip.engine import pipeline
import lab_blocks.deep.scales as scales
from lab_blocks import activations
from lab_blocks.names import *
from lab_base import Base

class Net(Base):
    """Multiplies."""
    def forward(self, x):
        from lab_late import shift  # only here
        return shift(activations.act(x)) * scales.SCALE
'''
FILES = {
    "lab_net.py": NET,
    "lab_base.py": "from torch import nn\nclass Base(nn.Module):\n    pass\n",
    "lab_late.py": "def shift(x):\n    return x + 1\n",
    "lab_blocks/__init__.py": "import lab_unused\n",
    "lab_blocks/names.py": "NAME = 1\n",
    "lab_blocks/activations.py": "from .deep.scales import SCALE\nfrom . import more\nact = abs\n",
    "lab_blocks/more.py": "MORE = 1\n",
    "lab_blocks/deep/__init__.py": "",
    "lab_blocks/deep/scales.py": "from ..names import NAME\nSCALE = 2.0\n",
    "lab_unused.py": "PLOTS = 1\n",
}
USED = {
    "lab_net", "lab_base", "lab_late", "lab_blocks.names", "lab_blocks.activations",
    "lab_blocks.more", "lab_blocks.deep.scales",
}  # fmt: skip


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with the files above, on the path."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("lab_")]:
        del sys.modules[name]


def of_net() -> dict[str, str]:
    """The digests of a network that a new process would find."""
    forget()
    importlib.invalidate_caches()
    return digests([], importlib.import_module("lab_net").Net().modules())


def test_a_users_module_counts_with_all_that_it_imports_of_the_users(lab: Path) -> None:
    assert set(of_net()) == USED


def test_what_is_imported_later_changes_nothing(lab: Path) -> None:
    before = of_net()
    assert "lab_late" not in sys.modules
    assert sys.modules["lab_net"].Net()(torch.ones(1)).item() == 4
    assert "lab_late" in sys.modules
    assert digests([], [sys.modules["lab_net"].Net()]) == before


@pytest.mark.parametrize("name", sorted(USED))
def test_an_edit_anywhere_is_seen(lab: Path, name: str) -> None:
    before = of_net()
    file = lab / f"{name.replace('.', '/')}.py"
    file.write_text(file.read_text() + "EDITED = True\n")
    after = of_net()
    assert {other for other in USED if after[other] != before[other]} == {name}


def test_comments_docstrings_and_layout_do_not_count(lab: Path) -> None:
    before = of_net()
    source = NET.replace('"""A network."""', '"""Of a release."""\n\n# by hand\n')
    source = source.replace("x + 1", "(x\n + 1)").replace('    """Multiplies."""\n', "\n")
    assert source != NET
    (lab / "lab_net.py").write_text(source)
    assert of_net() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a = 1", "a = True"),
        ("a = 1", "a = 1.0"),
        ("a = ['', 'x']", "a = ['x']"),
        ("a = [[], 'x']", "a = ['x', []]"),
        ("a = f'{b}'", "a = f'{b!r}'"),
        ("a = 'b'", "a = b"),
        ("a = b - c - d", "a = b - (c - d)"),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("def f(a, *, b): pass", "def f(a, b): pass"),
        ("def f(a, b=1): pass", "def f(a, b): pass"),
        ("a: int = 1", "a = 1"),
    ],
)
def test_what_computes_something_else_says_something_else(lab: Path, old: str, new: str) -> None:
    (lab / "lab_late.py").write_text(old)
    before = of_net()
    (lab / "lab_late.py").write_text(new)
    assert of_net()["lab_late"] != before["lab_late"]


def test_what_runs_counts_not_what_the_file_became(lab: Path) -> None:
    before = of_net()
    (lab / "lab_base.py").write_text(FILES["lab_base.py"] + "EDITED = True\n")
    assert digests([], [sys.modules["lab_net"].Net()]) == before
    importlib.reload(sys.modules["lab_base"])
    assert digests([], [sys.modules["lab_net"].Net()]) != before


def test_of_progip_the_cells_own_classes_count_and_of_torch_none() -> None:
    model = DigitsResNet(name="digits_resnet")
    found = code_identity({"model": model, "correction": None}, [*model.network().modules()])
    assert found["classes"] == {"model": "progip.models.digits.DigitsResNet"}
    assert set(found["modules"]) == {"progip.models.digits", "progip.models.resnet_cifar"}
    assert set(digests([ODIN(name="odin")])) == {"progip.ood_methods.odin"}
    assert digests([], [nn.Conv2d(1, 1, 1), nn.ReLU()]) == {}


def test_a_users_subclass_counts_with_the_class_of_progip_it_inherits_from() -> None:
    class Mine(BasicBlock):
        pass

    names = set(digests([], [Mine(4, 4, 1)]))
    assert {__name__, "progip.models.resnet_cifar"} <= names


def test_of_an_installed_package_a_components_own_class_counts() -> None:
    installed = nn.Identity()
    assert set(digests([installed])) == {"torch.nn.modules.linear"}
    assert digests([], [installed]) == {}


def test_a_file_that_is_no_source_counts_by_its_bytes(lab: Path) -> None:
    (lab / "lab_late.py").write_bytes(b"def shift(x: return x")
    before = of_net()["lab_late"]
    (lab / "lab_late.py").write_bytes(b"def shift(x: return 1")
    assert of_net()["lab_late"] != before


def test_finding_a_source_imports_nothing(lab: Path) -> None:
    assert source_file("lab_blocks.deep.scales") == (lab / "lab_blocks/deep/scales.py").resolve()
    assert source_file("lab_blocks.deep") == (lab / "lab_blocks/deep/__init__.py").resolve()
    assert source_file("lab_blocks.nothing") is None
    assert source_file("lab_nothing.at_all") is None
    assert source_file("sys") is None
    assert not [name for name in sys.modules if name.startswith("lab_")]
    assert source_code.PACKAGE.name == "progip"

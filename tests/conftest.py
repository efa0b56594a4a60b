"""What several test folders need: a cache, tiny networks, the real data where it is there."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.compat import enable_torchvision

settings.register_profile("busy", deadline=None)  # a loaded machine is no failure
settings.load_profile("busy")
enable_torchvision()  # pytorch-ood imports it

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("PROJECT_ROOT", str(ROOT))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache."""
    os.environ["PROGIP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real CIFAR-10 images and trained weights."""
    folder = Path(os.environ.get("PROGIP_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"no real data at {folder}; set PROGIP_DATA to a folder that has it")
    return folder


@pytest.fixture
def network() -> nn.Module:
    return tiny_network()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))

"""Students as files: calibrated, loaded in campaigns, or refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from spaces import SPACES
from torch import nn

from progip.config import build, composed
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.dynamic.network import DynamicNetwork
from progip.models.dynamic.student import (
    Student,
    calibrated,
    read_architecture,
    write_student,
)
from progip.models.loading import load_network


@pytest.mark.parametrize("family", SPACES)
def test_statistics_are_means_over_batches(family: str) -> None:
    torch.manual_seed(0)
    space = SPACES[family]
    network = DynamicNetwork(space, 3, 1).student(space.smallest())
    batches = [torch.rand(6, 1, 12, 12) for _ in range(3)]
    means, variances = [], []
    for batch in batches:
        first = network.conv1(batch).transpose(0, 1).flatten(1)
        means.append(first.mean(1))
        variances.append(first.var(1, unbiased=True))
    found = calibrated(network, batches)
    assert not found.training
    assert network.get_submodule("dropout").p == space.dropout
    torch.testing.assert_close(found.bn1.running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(found.bn1.running_var, torch.stack(variances).mean(0))
    last = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)][-1]
    assert int(last.num_batches_tracked) == 3


@pytest.mark.parametrize("family", SPACES)
def test_a_file_says_which_student_it_is(family: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    space = SPACES[family]
    architecture = space.sample()
    network = DynamicNetwork(space, 8, 1).student(architecture)
    path = tmp_path / "folder/student.safetensors"
    write_student(network, space, architecture, path)
    assert read_architecture(path) == (space, architecture)
    cfg = composed(["model=student", "model.channels=1", f"model.weights={path}"])
    loaded = load_network(build(cfg.model, Model, "model"), image_shape=(1, 16, 16))
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(loaded(images), network(images), atol=1e-6, rtol=1e-6)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ProgipError, match=r"other\.safetensors does not say of which student"):
        Student(name="student", weights=str(path)).network()
    space = SPACES["resnet"]
    wrong = {**space.largest(), "depth": [7, 1]}
    write_student(nn.Linear(1, 1), space, wrong, path)
    with pytest.raises(ProgipError, match=r"other\.safetensors: depth=\[7, 1\] must be 2 of"):
        read_architecture(path)

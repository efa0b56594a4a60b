"""Which device a name stands for, and what is said of one that is not here."""

import pytest
import torch

from progip.devices import gpu, usable_device
from progip.errors import ProgipError


def test_auto_is_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == usable_device(torch.device("cpu")) == torch.device("cpu")
    assert gpu("auto") == gpu("cuda") == gpu("cpu") == ""


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (gpu("auto"), gpu("cuda:1"), gpu("cpu")) == ("cuda", "cuda:1", "")


@pytest.mark.parametrize("name", ["gpu", "tpu", "cuda:99"])
def test_a_device_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(ProgipError, match=f"^device={name}: .*use device=auto"):
        usable_device(name)

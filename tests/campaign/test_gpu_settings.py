"""What a GPU changes in settings and manifests, asked of a pretended one."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from progip.campaign.settings import MOST_ROWS_ON_GPU
from progip.config import cell_settings, composed
from progip.storage.provenance import hardware

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    about = SimpleNamespace(total_memory=80 * 2**30)
    for name, value in {
        "is_available": lambda: True,
        "get_device_name": lambda _: "Pretended",
        "get_device_capability": lambda _: (9, 0),
        "get_device_properties": lambda _: about,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)


def subject(*overrides: str):
    return cell_settings(composed(list(overrides), ROOT / "conf")).subject


def test_rows_and_memory_by_device(gpu: None) -> None:
    assert (subject("device=cpu").rows, subject("device=cpu").memory) == (32, 2**31)
    for device in ("auto", "cuda", "cuda:1"):
        found = subject(f"device={device}")
        assert (found.rows, found.memory) == (MOST_ROWS_ON_GPU, 40 * 2**30)
    given = subject("device=cuda", "batch_size=48", "golden_memory=1_000_000_000")
    assert (given.rows, given.memory) == (48, 1_000_000_000)


def test_without_a_gpu_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (subject("device=auto").rows, subject("device=auto").memory) == (32, 2**31)


def test_manifests_name_what_decides_the_kernels(gpu: None) -> None:
    found = hardware(torch.device("cuda"))
    assert found["gpu"] == "Pretended"
    assert found["gpu_capability"] == "9.0"
    assert found["gpu_memory"] == 80 * 2**30
    assert found["cudnn"] == 91002
    assert "cuda" in found
    assert set(hardware(torch.device("cpu"))) == {
        "processor", "cores", "threads", "device", "gpu",
    }  # fmt: skip


def test_new_tensors_are_not_filled(gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(0))  # there is no such device
    before = torch.utils.deterministic.fill_uninitialized_memory
    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        subject("device=cuda").torch_device()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags

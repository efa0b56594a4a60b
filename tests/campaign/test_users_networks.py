"""Campaigns on networks that other people write, against hooks of our own in batches of one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from stored_rows import rows_of
from torch import Tensor, nn
from users_model import users_model

from progip.campaign.runner import run_cell
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject, prepare
from progip.config import cell_settings, composed, resolved

ROOT = Path(__file__).resolve().parents[2]
TOKENS = ["Crops", "SeqFirst", "SeqFirst64", "TransEnc", "ClsTok"]
LAYERS = ["OneWN", "WNorm", "SubConv", "LinDrop", "Kwargs", "Lstm"]
PLAIN = [
    "InplaceFn", "InplaceMod", "Shared", "Tied", "SeqSub", "SelfAttn", "CLast", "PixelShuf",
    "OneHead", "CheckPt", "OldWNorm", "ImgMut", "Conv1",
]  # fmt: skip
EVERY = [*TOKENS, *LAYERS, *PLAIN, pytest.param("Deep", marks=pytest.mark.slow)]


def cell(tmp_path: Path, model: list[str], *overrides: str) -> tuple[CellSettings, pd.DataFrame]:
    cfg = composed(
        [
            f"outputs={tmp_path}", "batch_size=16", "runs=100", "self_check=0", "protection=none",
            "fault_model.layers=.*", *model, *overrides,
        ],
        ROOT / "conf",
    )  # fmt: skip
    settings = cell_settings(cfg)
    return settings, rows_of(run_cell(settings, resolved(cfg)))


def flipped(value: float, bit: int) -> float:
    word = np.float32(value).view(np.uint32) ^ np.uint32(1 << bit)
    return float(word.view(np.float32))


class Oracle:
    """One run by one forward hook, in a batch of one image."""

    def __init__(self, subject: Subject, population: str) -> None:
        self.network, self.images = subject.tested.network, subject.tested.images[population]

    @torch.no_grad()
    def run(self, row: Any) -> tuple[float, int]:
        """The value before the fault, and the class after it."""
        before: list[float] = []
        calls = 0

        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            nonlocal calls
            calls += 1
            if calls != row.call + 1:
                return None
            flat = output.contiguous().reshape(-1).clone()
            before.append(float(flat[row.neuron]))
            flat[row.neuron] = flipped(before[0], row.bit)
            return flat.reshape(output.shape)

        handle = self.network.get_submodule(row.layer).register_forward_hook(hook)
        try:
            logits = self.network(self.images[row.sample_index][None].clone())
        finally:
            handle.remove()
        return before[0], int(logits.argmax())


@pytest.mark.parametrize("executor", ["incremental", "reference"])
@pytest.mark.parametrize("kind", EVERY)
def test_rows_are_those_of_a_hook_in_batches_of_one(
    tmp_path: Path, kind: str, executor: str
) -> None:
    chosen = ["pass=first_forward", "population=id", "ood_method=none", f"executor={executor}"]
    settings, rows = cell(tmp_path, users_model(kind), "ood_dataset=none", *chosen)
    assert_hooks_agree(settings, rows)


def assert_hooks_agree(settings: CellSettings, rows: pd.DataFrame, rel: float = 1e-4) -> None:
    oracle = Oracle(prepare(settings.subject), "id")
    for row in rows.itertuples():
        before, label = oracle.run(row)
        assert before == pytest.approx(row.value_before, rel=rel, abs=rel / 100)
        assert row.value_after == flipped(row.value_before, row.bit) or np.isnan(row.value_after)
        assert label == row.faulty_class or row.faulty_class == -1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("resnetv2_50x1_bit", 32),
        ("tf_mobilenetv3_small_minimal_100", 64),
        ("vit_tiny_patch16_224", 224),
    ],
)
def test_rows_of_timm_networks(tmp_path: Path, arch: str, size: int) -> None:
    pytest.importorskip("timm", reason="an extra that is not installed")
    model = ["model=timm", f"model.arch={arch}", "model.channels=1", f"model.input_size={size}"]
    chosen = ["ood_method=none", "ood_dataset=none", "population=id", "pass=first_forward"]
    model.append("model.weights=random")
    settings, rows = cell(tmp_path, model, *chosen, "batch_size=8", "self_check=0.1")
    assert_hooks_agree(settings, rows, rel=1e-2)  # 50 layers round otherwise in a batch of one
    _, rows = cell(tmp_path, model, *chosen, "batch_size=8", "fault_model=none", "runs=20")
    assert (rows["faulty_class"] == rows["golden_class"]).all()
    assert (rows["faulty_score"] == rows["golden_score"]).all()


@pytest.mark.parametrize("fault_pass", ["first_forward", "backward", "second_forward"])
@pytest.mark.parametrize("kind", [*TOKENS, *LAYERS])
def test_both_executors_agree_in_every_pass(tmp_path: Path, kind: str, fault_pass: str) -> None:
    chosen = ["ood_method=odin", f"pass={fault_pass}", "population=ood"]
    _, fast = cell(tmp_path / "a", users_model(kind), *chosen, "executor=incremental")
    _, whole = cell(tmp_path / "b", users_model(kind), *chosen, "executor=reference")
    pd.testing.assert_frame_equal(fast, whole, check_exact=True)


@pytest.mark.parametrize("kind", EVERY)
def test_without_faults_every_row_is_golden(tmp_path: Path, kind: str) -> None:
    chosen = ["fault_model=none", "ood_method=odin", "executor=reference"]
    _, rows = cell(tmp_path, users_model(kind), *chosen, "pass=first_forward", "population=id")
    for name in ("class", "score", "grad_max"):
        assert (rows[f"faulty_{name}"] == rows[f"golden_{name}"]).all()
    assert not rows[["class_changed", "verdict_changed", "detection_failure"]].any(axis=None)


def test_what_is_not_hit_is_told_once_and_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = ["pass=first_forward", "population=id"]
    for protection in ("none", "progip"):
        settings, _ = cell(tmp_path, users_model("SelfAttn"), *chosen, f"protection={protection}")
    (line,) = [text for text in caplog.messages if "no fault hits" in text]
    assert line.startswith("first_forward pass: no fault hits 'mha.out_proj' (")
    assert line.endswith("it is never called as a module in this pass")
    coverage = json.loads((settings.folder / "manifest.json").read_text())["coverage"]
    assert [layer["layer"] for layer in coverage["not_hit"]] == ["mha.out_proj"]
    assert 0 < coverage["macs_hit"] < coverage["macs"]

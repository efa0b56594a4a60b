"""Heads: their algebra, where they go, what they start from, faults in their layers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_networks import tiny_network
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.digits import DigitsResNet
from progip.models.heads.base import check_last
from progip.models.heads.decomposed_confidence import DecomposedConfidenceHead
from progip.models.heads.embeddings import random_rows
from progip.models.heads.linear import LinearHead
from progip.models.heads.text_guided import MergedNormed, TextGuided, TextGuidedHead
from progip.models.loading import load_network, seeded_network
from progip.models.torchvision_model import TorchvisionModel


def head(features: int = 6, width: int = 16, classes: int = 5, seed: int = 0) -> TextGuidedHead:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = TextGuided(width=width).module(features, classes)
        TextGuided(width=width).start(made)
        nn.init.normal_(made.project.bias)
    assert isinstance(made, TextGuidedHead)
    return made.requires_grad_(False)


@given(
    features=st.integers(1, 20), width=st.integers(2, 40), classes=st.integers(2, 9),
    seed=st.integers(0, 10**6),
)  # fmt: skip
def test_the_algebra_of_the_three_modes(features: int, width: int, classes: int, seed: int) -> None:
    split = head(features, width, classes, seed)
    f = torch.randn(7, features, generator=torch.Generator().manual_seed(seed))
    a, b, w = (
        p.double() for p in (split.project.weight, split.project.bias, split.classify.weight)
    )
    z = f.double() @ a.T + b
    expected = math.exp(split.log_scale.item()) * (z / z.norm(dim=1, keepdim=True)) @ w.T
    torch.testing.assert_close(split(f).double(), expected, rtol=1e-4, atol=1e-4)
    normed = TextGuided(width=width, mode="merged_normed").finished(split)
    assert isinstance(normed, MergedNormed)
    # |z|^2 is a difference where A f and b nearly cancel
    lost = ((f.double() @ a.T).square().sum(1) + b.square().sum()) / z.square().sum(1)
    sane = lost < 100
    torch.testing.assert_close(normed(f)[sane], split(f)[sane], rtol=1e-3, atol=2e-3)
    merged = TextGuided(width=width, mode="merged_argmax").finished(split)
    assert type(merged) is nn.Linear
    best = expected.topk(2, 1).values
    clear = sane & (best[:, 0] - best[:, 1] > 1e-2)
    for other in (normed, merged):
        assert torch.equal(other(f)[clear].argmax(1), split(f)[clear].argmax(1))
    ratio = merged(f).double() / expected * z.norm(dim=1, keepdim=True).reciprocal()
    inverse = torch.full_like(ratio, 1 / math.exp(split.log_scale.item()))
    torch.testing.assert_close(
        ratio[expected.abs() > 0.1], inverse[expected.abs() > 0.1], rtol=1e-2, atol=1e-2
    )


def test_the_source_s_sizes_and_temperature() -> None:
    """Parameters of the sheet: B E + E + E C + 1; ResNet-50 1.561 M, ResNet-18 0.775 M."""
    for features, millions in ((2048, 1.561), (512, 0.775), (4096, 2.610)):
        made = TextGuided().module(features, 1000)
        count = sum(p.numel() for p in made.parameters())
        assert count == features * 512 + 512 + 512 * 1000 + 1
        assert count / 1e6 == pytest.approx(millions, abs=5e-4)
    assert float(head().log_scale.exp()) == pytest.approx(14.286, abs=1e-3)


def test_a_huge_value_before_the_norm_is_masked_and_one_after_it_is_not() -> None:
    split, f = head(), torch.randn(3, 6)
    scale = float(split.log_scale.exp())

    def with_value(layer: nn.Module, value: float) -> Tensor:
        def put(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[:, 2] = value
            return changed

        handle = layer.register_forward_hook(put)
        try:
            return split(f)
        finally:
            handle.remove()

    # up to 1.8e19 u becomes a unit vector of that element; beyond, squares overflow and u is 0
    large = with_value(split.project, 1e15)
    torch.testing.assert_close(large, scale * split.classify.weight[:, 2].expand(3, -1))
    assert torch.equal(with_value(split.project, 1e30), torch.zeros(3, 5))
    assert with_value(split.project, float("inf")).isnan().all()
    assert with_value(split.classify, 1e30)[:, 2].min() == pytest.approx(1e30 * scale, rel=1e-5)


@given(c=st.floats(0, 0.9), seed=st.integers(0, 10**6))
def test_random_rows_are_unit_and_have_the_mean_cosine(c: float, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rows = random_rows(100, 512, c)
    cosines = rows @ rows.T
    torch.testing.assert_close(cosines.diagonal(), torch.ones(100))
    assert float((cosines.sum() - 100) / 9900) == pytest.approx(c, abs=0.01)


def saved(path: Path, rows: Tensor) -> Path:
    if path.suffix == ".npy":
        np.save(path, rows.numpy())
    elif path.suffix == ".safetensors":
        save_file({"text": rows}, path)
    else:
        torch.save(rows, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".npy", ".safetensors"])
def test_embeddings_of_a_file(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = torch.randn(4, 8)
    file = saved(tmp_path / f"text{suffix}", rows)
    network = tiny_network()
    with caplog.at_level("INFO", "progip"):
        assert TextGuided(embeddings=str(file), width=8).attach(network, 4) == "6"
    assert "brought to length 1" in caplog.text
    weight = network.get_submodule("6.classify").weight
    torch.testing.assert_close(weight, rows / rows.norm(dim=1, keepdim=True))
    made = TextGuided(embeddings=str(file), width=8, rows=[3, -1, 0], freeze=True)
    other = made.module(4, 3)
    made.start(other)
    torch.testing.assert_close(other.classify.weight[[0, 2]], weight[[3, 0]])
    assert float(other.classify.weight[1].norm()) == pytest.approx(1, abs=1e-5)
    trained = [name for name, p in other.named_parameters() if p.requires_grad]
    assert trained == ["log_scale", "project.weight", "project.bias"]


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (torch.ones(5, 8), {}, "5 embeddings for 4 classes.*model.head.rows"),
        (torch.ones(4, 7), {}, "width 7, but model.head.width is 8"),
        (torch.ones(4), {}, r"not float32 \(4,\)"),
        (torch.ones(4, 8, dtype=torch.int64), {}, r"not int64 \(4, 8\)"),
        (
            torch.eye(8)[:4] * torch.tensor([1, 1, 0, 1.0])[:, None],
            {},
            "row 2, of class 2, is zero",
        ),
        (torch.ones(4, 8) / torch.tensor([1, 0, 1, 1.0])[:, None], {}, "row 1.* holds NaN or inf"),
        (torch.ones(4, 8), {"rows": [0, 1, 2, 4]}, "must name 4 rows of the 4"),
        (torch.ones(4, 8), {"rows": [0, 1]}, "it has 2, from 0 to 1"),
    ],
)
def test_wrong_embeddings_are_named(
    tmp_path: Path, rows: Tensor, options: dict[str, Any], message: str
) -> None:
    file = saved(tmp_path / "text.pth", rows)
    with pytest.raises(ProgipError, match=message):
        TextGuided(embeddings=str(file), width=8, **options).attach(tiny_network(), 4)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"nothing")
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "a.pth")
    for name, message in (("a.npy", "damaged"), ("a.pth", "2 entries"), ("b.pth", "no file")):
        with pytest.raises(ProgipError, match=message):
            TextGuided(embeddings=str(tmp_path / name)).attach(tiny_network(), 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "merged"}, "one of split, merged_normed, merged_argmax: 'merged'"),
        ({"width": 1}, "at least 2"),
        ({"mean_cosine": 1.0}, "mean_cosine"),
        ({"rows": [0]}, "model.head.embeddings is 'random'"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        TextGuided(**options)


def test_networks_without_a_linear_layer_at_the_end() -> None:
    for arch, message in (("squeezenet1_0", "no linear layer"), ("efficientnet_b0", None)):
        spec = TorchvisionModel(name="a", arch=arch, head=TextGuided(), weights="random")
        if message:
            with pytest.raises(ProgipError, match=message):
                seeded_network(spec)
        else:
            assert isinstance(seeded_network(spec).classifier[1], TextGuidedHead)
    with pytest.raises(ProgipError, match=r"'6' .*4 outputs.* the logits of 10 classes"):
        LinearHead().attach(tiny_network(), 10)
    with pytest.raises(ProgipError, match=r"'1' .ReLU. is not linear"):
        LinearHead().attach(tiny_network(), 4, "1")
    behind = nn.Sequential(tiny_network(), nn.Softmax(1))
    with pytest.raises(ProgipError, match="is not the end of Sequential"):
        check_last(behind, LinearHead().attach(behind, 4), torch.randn(2, 3, 8, 8))


MODES: list[Callable[[], Any]] = [
    lambda: TextGuided(mode="split"),
    lambda: TextGuided(mode="merged_normed"),
    lambda: TextGuided(mode="merged_argmax"),
    lambda: LinearHead(),
    lambda: DecomposedConfidenceHead(),
]


@pytest.mark.parametrize("make", MODES)
def test_loaded_networks_have_the_same_class_in_every_mode(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    trained = seeded_network(DigitsResNet(name="digits", head=make())).eval()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    spec = DigitsResNet(name="digits", head=make(), weights=str(tmp_path / "w.safetensors"))
    network = load_network(spec, image_shape=(1, 16, 16))
    assert not any(p.requires_grad for p in network.parameters())
    images = torch.rand(50, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = trained(images), network(images)
    assert torch.equal(found.argmax(1), expected.argmax(1))
    if getattr(spec.head, "mode", "") != "merged_argmax":
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

"""timm's classifiers: by name, with their own weights, rewritten only where that is exact."""

import copy
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import fx, nn

from progip.compat import enable_torchvision
from progip.errors import ProgipError
from progip.models import timm_model
from progip.models.loading import load_network, seeded_network
from progip.models.rewrite import with_own_modules
from progip.models.timm_model import TimmModel

enable_torchvision()
timm = pytest.importorskip("timm", reason="an extra that is not installed")

#: name -> pixels a side; layers of classes that inherit from torch's among them: weights that are
#: standardised (bit, nfnet), "same" padding (tf_), scaled in place (nfnet)
TRACED = {
    "test_resnet": 32, "test_efficientnet": 32, "test_convnext": 32, "test_byobnet": 32,
    "test_nfnet": 64, "resnetv2_50x1_bit": 32, "tf_mobilenetv3_small_minimal_100": 32,
    "vit_tiny_patch16_224": 224, "levit_128s": 224,
}  # fmt: skip
AS_THEY_ARE = {"test_vit": 160, "vgg11_bn": 32}


def spec(arch: str, **options: Any) -> TimmModel:
    return TimmModel(name=arch, arch=arch, weights="random", **options)


def layers(network: nn.Module) -> list[str]:
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    return sorted(name for name, m in network.named_modules() if isinstance(m, kinds))


@pytest.mark.parametrize(("arch", "size"), {**TRACED, **AS_THEY_ARE}.items())
@torch.no_grad()
def test_prepared_network_equals_timms_bit_for_bit(
    arch: str, size: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = spec(arch, classes=7)
    prepared = load_network(model, image_shape=(3, size, size))
    plain = seeded_network(model).eval()
    x = torch.randn(2, 3, size, size)
    assert torch.equal(prepared(x), plain(x))
    assert set(dict(prepared.named_parameters())) == set(dict(plain.named_parameters()))
    assert layers(prepared) == layers(plain)
    assert not any(getattr(m, "inplace", False) is True for m in prepared.modules())
    assert isinstance(prepared, fx.GraphModule) == (arch in TRACED)
    functions = {n.target for n in prepared.graph.nodes} if arch in TRACED else set()
    assert not functions & {nn.functional.relu, nn.functional.gelu, nn.functional.silu}
    assert ("cannot be rewritten" in caplog.text) == (arch in AS_THEY_ARE)


def test_every_activation_of_a_rewritten_network_is_a_module() -> None:
    prepared = load_network(spec("test_resnet"))
    assert isinstance(prepared, fx.GraphModule)
    functions = {n.target for n in prepared.graph.nodes if n.op == "call_function"}
    assert {getattr(f, "__name__", "") for f in functions} == {"add"}


@torch.no_grad()
def test_what_is_done_in_place_is_not_taken_for_dead_code() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gain = nn.Conv2d(1, 2, 3), nn.Parameter(torch.tensor(0.2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.conv(x)
            out.mul_(self.gain)
            return out

    network = Scaled().eval()
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(with_own_modules(network)(x), network(x))


def test_a_network_that_computes_something_else_when_traced_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(network: nn.Module, *_: object) -> nn.Module:
        changed = copy.deepcopy(network)
        next(changed.parameters()).mul_(1.5)
        return changed

    monkeypatch.setattr("progip.models.named.with_own_modules", wrong)
    with caplog.at_level(logging.WARNING):
        prepared = load_network(spec("test_resnet"))
    assert "the traced network computes other values" in caplog.text
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(prepared(x), seeded_network(spec("test_resnet")).eval()(x))


@torch.no_grad()
def test_images_are_enlarged_and_may_have_any_number_of_channels() -> None:
    model = spec("test_vit", channels=1, input_size=160)
    plain = seeded_network(model).eval()
    x = torch.randn(2, 1, 32, 32)
    large = nn.functional.interpolate(x, (160, 160), mode="bilinear")
    with pytest.raises(ProgipError, match=r"cannot take images of 3 x 32 x 32.*model\.input_size"):
        load_network(spec("vit_tiny_patch16_224"), image_shape=(3, 32, 32))
    prepared = load_network(model, image_shape=(1, 32, 32))
    assert torch.equal(prepared(x), plain(x))
    small = timm.create_model("test_vit", num_classes=10, in_chans=1).eval()
    small.load_state_dict(plain.state_dict())
    assert torch.equal(prepared(x), small(large))
    traced = load_network(spec("test_resnet", input_size=64), image_shape=(3, 32, 32))
    assert isinstance(dict(traced.named_modules())["input_resize"], nn.Upsample)


def test_weights_of_timm_fit(tmp_path: Path) -> None:
    theirs = timm.create_model("test_resnet", num_classes=10).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    model = TimmModel(name="t", arch="test_resnet", weights=str(tmp_path / "model.safetensors"))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_network(model)(x), theirs(x))


def test_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a connection"))
    load_network(spec("test_resnet"))
    with pytest.raises(ProgipError, match=r"no weights called 'published'.*model\.weights=PATH"):
        load_network(TimmModel(name="t", arch="test_resnet", weights="published"))


def test_a_wrong_name_lists_close_ones() -> None:
    with pytest.raises(ProgipError, match=r"timm has no classification model 'resnet81'; did you"):
        spec("resnet81")
    with pytest.raises(ProgipError, match=r"'resnet18\.a1_in1k'; did you mean .*resnet18"):
        spec("resnet18.a1_in1k")  # a tag names weights, which are given by themselves
    with pytest.raises(ProgipError, match=r"'qqqq'; there are .*, \.\.\.$"):
        spec("qqqq")
    with pytest.raises(ProgipError, match="input_size"):
        spec("resnet18", input_size=0)


def test_what_timm_cannot_make_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: Any, **__: Any) -> None:
        raise ValueError("no such thing\nmore")

    monkeypatch.setattr(timm_model._timm(), "create_model", refuses)
    with pytest.raises(ProgipError, match=r"timm cannot make 'resnet18' for 10 .*: no such thing$"):
        spec("resnet18").network()


def test_without_timm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ProgipError, match=r"needs the package timm: pip install"):
        spec("resnet18")

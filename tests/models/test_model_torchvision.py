"""torchvision's classifiers: by name, every activation a module, logits alone."""

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import fx, nn

from progip.errors import ProgipError
from progip.models.features import penultimate_module
from progip.models.loading import load_network, seeded_network
from progip.models.rewrite import with_own_modules
from progip.models.torchvision_model import TorchvisionModel

SIZES = {
    "resnet18": None,
    "densenet121": None,
    "googlenet": None,
    "squeezenet1_1": None,
    "mobilenet_v3_small": None,
    "shufflenet_v2_x0_5": None,
    "mnasnet0_5": None,
    "efficientnet_b0": None,
    "inception_v3": 80,
    "swin_t": 64,
}


def spec(arch: str, **options: Any) -> TorchvisionModel:
    return TorchvisionModel(name=arch, arch=arch, weights="random", **options)


@pytest.mark.parametrize(("arch", "size"), SIZES.items())
@torch.no_grad()
def test_prepared_network_equals_torchvisions_bit_for_bit(arch: str, size: int | None) -> None:
    model = spec(arch, classes=7, input_size=size)
    prepared = load_network(model, image_shape=(3, 32, 32))
    plain = seeded_network(model).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(prepared(x), plain(x))
    assert set(prepared.state_dict()) == set(plain.state_dict())
    assert not any(getattr(m, "inplace", False) for m in prepared.modules())
    assert isinstance(prepared, fx.GraphModule)
    calls = Counter(n.target for n in prepared.graph.nodes if n.op == "call_module")
    assert set(calls.values()) == {1}
    named = {str(getattr(n.target, "__name__", n.target)) for n in prepared.graph.nodes}
    assert not named & {"relu", "flatten", "view", "reshape", "mean", "max_pool2d", "avg_pool2d",
                        "adaptive_avg_pool2d", "iadd", "imul"} - set(calls)  # fmt: skip


def test_names_say_where_a_function_stood() -> None:
    prepared = load_network(spec("densenet121", input_size=64))
    modules = dict(prepared.named_modules())
    assert isinstance(modules["relu"], nn.ReLU)
    assert isinstance(modules["adaptive_avg_pool2d"], nn.AdaptiveAvgPool2d)
    assert isinstance(modules["flatten"], nn.Flatten)
    assert isinstance(modules["input_resize"], nn.Upsample)
    block = dict(load_network(spec("resnet18")).named_modules())
    assert block["layer1.0.relu"] is not block["layer1.0.relu_1"]


def test_a_linear_layer_used_only_for_its_weights_is_no_site() -> None:
    plain = seeded_network(spec("swin_t"))
    prepared = load_network(spec("swin_t"))
    assert isinstance(plain.get_submodule("features.1.0.attn.qkv"), nn.Linear)
    names = [n for n, m in prepared.named_modules() if isinstance(m, nn.Linear)]
    assert not [name for name in names if name.endswith("qkv")]
    assert "features.1.0.mlp.0" in names


def test_weights_shared_by_two_calls_stay_shared() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.relu = nn.Linear(3, 3), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.relu(self.layer(self.relu(self.layer(x)))).relu()

    network = Twice().eval()
    result = with_own_modules(network)
    assert {n for n, _ in result.named_modules()} == {"", "layer", "relu", "relu_1", "relu_2"}
    x = torch.randn(2, 3)
    assert torch.equal(result(x), network(x))


def test_auxiliary_weights_of_a_file_are_left_out(tmp_path: Path) -> None:
    state = seeded_network(spec("googlenet")).state_dict() | {"aux1.fc2.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "w.pth")
    model = TorchvisionModel(name="g", arch="googlenet", weights=str(tmp_path / "w.pth"))
    assert load_network(model)(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


def test_architectures() -> None:
    assert {"resnet18", "vit_b_16", "vgg16_bn"} <= set(TorchvisionModel.known())
    assert not [name for name in TorchvisionModel.known() if "fcn" in name or "quantized" in name]


def test_unknown_architecture_lists_close_ones() -> None:
    with pytest.raises(ProgipError, match=r"'resnet81'; did you mean .*resnet18"):
        spec("resnet81")
    with pytest.raises(ProgipError, match="'qqqq'; there are alexnet"):
        spec("qqqq")


def test_other_options_out_of_range() -> None:
    with pytest.raises(ProgipError, match="3 channels"):
        spec("resnet18", channels=1)
    with pytest.raises(ProgipError, match="input_size"):
        spec("resnet18", input_size=0)


def test_images_too_small_for_the_architecture() -> None:
    with pytest.raises(
        ProgipError, match=r"alexnet.*cannot take images of 3 x 32 x 32.*input_size"
    ):
        load_network(spec("alexnet"), image_shape=(3, 32, 32))


def test_published_weights_need_imagenets_classes() -> None:
    with pytest.raises(ProgipError, match="1000 classes, the dataset has 10"):
        load_network(TorchvisionModel(name="t", weights="published"))


def test_published_weights_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*arguments: Any, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(ProgipError, match=r"no route to host.*download\.pytorch\.org.*PATH"):
        load_network(TorchvisionModel(name="t", classes=1000, weights="published"))


def test_published_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = TorchvisionModel(name="t", arch="squeezenet1_1", classes=1000, weights="published")
    state = seeded_network(model).state_dict()
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")
    loaded = load_network(model).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_penultimate_module() -> None:
    network = load_network(TorchvisionModel(name="t", arch="vgg11", weights="random"))
    assert penultimate_module(network) is network.get_submodule("classifier.6")
    assert penultimate_module(network, "classifier.3") is network.get_submodule("classifier.3")
    with pytest.raises(ProgipError, match=r"'clasifier\.6'; did you mean .*classifier\.6"):
        penultimate_module(network, "clasifier.6")
    with pytest.raises(ProgipError, match=r"no linear layer.*model\.feature_layer=NAME"):
        penultimate_module(load_network(spec("squeezenet1_1")))

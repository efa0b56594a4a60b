"""Parameter counts, module style, and outputs against other implementations."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from progip.compat import enable_torchvision
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.densenet import DenseNetBC
from progip.models.digits import DigitsResNet
from progip.models.resnet import ResNet
from progip.models.resnet_cifar import CifarResNet, PadShortcut
from progip.models.vgg import VGG16BN

# published: He et al. 2016 table 6 (0.27, 0.46, 0.66, 0.85 M), Huang et al. 2017 table 2 (0.8 M),
# kuangliu/pytorch-cifar, chenyaofo/pytorch-cifar-models (15.25 M)
PARAMETERS = {
    "resnet20": (CifarResNet(name="m", depth=20), 269_722),
    "resnet32": (CifarResNet(name="m", depth=32), 464_154),
    "resnet44": (CifarResNet(name="m", depth=44), 658_586),
    "resnet56": (CifarResNet(name="m", depth=56), 853_018),
    "resnet20-b": (CifarResNet(name="m", depth=20, shortcut="B"), 272_474),
    "resnet56-b": (CifarResNet(name="m", depth=56, classes=100, shortcut="B"), 861_620),
    "densenet": (DenseNetBC(name="m"), 769_162),
    "resnet18": (ResNet(name="m", depth=18), 11_173_962),
    "resnet34": (ResNet(name="m", depth=34), 21_282_122),
    "vgg16_bn": (VGG16BN(name="m"), 15_253_578),
    "digits": (DigitsResNet(name="m"), 74_872),
}
SPECS = [pytest.param(spec, id=name) for name, (spec, _) in PARAMETERS.items()]


class Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PadShortcut) or super().is_leaf_module(m, module_qualified_name)


@pytest.mark.parametrize(("spec", "count"), PARAMETERS.values(), ids=list(PARAMETERS))
def test_parameter_count(spec: Model, count: int) -> None:
    assert sum(p.numel() for p in spec.network().parameters()) == count


@pytest.mark.parametrize("spec", SPECS)
def test_every_activation_pool_and_reshape_is_a_module_of_its_own(spec: Model) -> None:
    network = spec.network().eval()
    nodes = list(Tracer().trace(network).nodes)
    functions = {str(n.target) for n in nodes if n.op in ("call_function", "call_method")}
    assert functions <= {"<built-in function add>", str(torch.cat)}
    calls = Counter(n.target for n in nodes if n.op == "call_module")
    assert set(calls.values()) == {1}
    instances = Counter(id(network.get_submodule(name)) for name in calls)
    assert set(instances.values()) == {1}
    assert not any(getattr(m, "inplace", False) for m in network.modules())


def test_pad_shortcut_is_option_a() -> None:
    x = torch.randn(2, 16, 8, 8)
    out = PadShortcut(8)(x)
    assert out.shape == (2, 32, 4, 4)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def _trained_looking(network: nn.Module) -> nn.Module:
    """Statistics of batch normalisation that are not 0 and 1."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def _norm(x: Tensor, s: dict[str, Tensor], key: str) -> Tensor:
    mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
    scale = s[f"{key}.weight"] / torch.sqrt(var + 1e-5)
    return x * scale[:, None, None] + (s[f"{key}.bias"] - mean * scale)[:, None, None]


def functional_densenet(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    out = F.conv2d(x, s["conv1.weight"], padding=1)
    for block in (1, 2, 3):
        features = [out]
        for i in range(16):
            key = f"block{block}.layer.{i}"
            new = F.conv2d(
                F.relu(_norm(torch.cat(features, 1), s, f"{key}.bn1")), s[f"{key}.conv1.weight"]
            )
            new = F.conv2d(F.relu(_norm(new, s, f"{key}.bn2")), s[f"{key}.conv2.weight"], padding=1)
            features.append(new)
        out = torch.cat(features, 1)
        if block < 3:
            key = f"trans{block}"
            out = F.conv2d(F.relu(_norm(out, s, f"{key}.bn1")), s[f"{key}.conv1.weight"])
            out = F.avg_pool2d(out, 2)
    return F.relu(_norm(out, s, "bn1")).mean((2, 3)) @ s["fc.weight"].T + s["fc.bias"]


def functional_resnet_b(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    """Projections and the classifier under the names of other public weights."""
    names = {k: k.replace("downsample", "shortcut").replace("fc.", "linear.") for k in s}
    return functional_resnet(x, {names[k]: value for k, value in s.items()})


def functional_resnet(x: Tensor, s: dict[str, Tensor]) -> Tensor:
    """Either family: the shortcut is a projection where the weights have one, else option A."""
    out = F.relu(_norm(F.conv2d(x, s["conv1.weight"], padding=1), s, "bn1"))
    blocks = dict.fromkeys(
        k.split(".conv1")[0] for k in s if k.startswith("layer") and ".conv1" in k
    )
    for key in blocks:
        stride = 1 if key.startswith("layer1") or not key.endswith(".0") else 2
        inner = F.conv2d(out, s[f"{key}.conv1.weight"], stride=stride, padding=1)
        inner = F.relu(_norm(inner, s, f"{key}.bn1"))
        inner = _norm(F.conv2d(inner, s[f"{key}.conv2.weight"], padding=1), s, f"{key}.bn2")
        if f"{key}.shortcut.0.weight" in s:
            out = F.conv2d(out, s[f"{key}.shortcut.0.weight"], stride=stride)
            out = _norm(out, s, f"{key}.shortcut.1")
        elif stride == 2:
            zeros = torch.zeros_like(out[:, : out.shape[1] // 2, ::2, ::2])
            out = torch.cat([zeros, out[:, :, ::2, ::2], zeros], 1)
        out = F.relu(inner + out)
    return out.mean((2, 3)) @ s["linear.weight"].T + s["linear.bias"]


@pytest.mark.parametrize(
    ("spec", "reference", "size"),
    [
        (DenseNetBC(name="m"), functional_densenet, 32),
        (CifarResNet(name="m", depth=20), functional_resnet, 32),
        (CifarResNet(name="m", depth=56), functional_resnet, 32),
        (CifarResNet(name="m", depth=20, shortcut="B"), functional_resnet_b, 32),
        (ResNet(name="m", depth=18), functional_resnet, 32),
        (DigitsResNet(name="m"), functional_resnet, 16),
    ],
    ids=["densenet", "resnet20", "resnet56", "resnet20-b", "resnet18", "digits"],
)
@torch.no_grad()
def test_outputs_equal_a_functional_implementation(
    spec: Model, reference: Callable[[Tensor, dict[str, Tensor]], Tensor], size: int
) -> None:
    network = _trained_looking(spec.network()).double()
    x = torch.randn(2, spec.channels, size, size, dtype=torch.float64)
    expected = reference(x, network.state_dict())
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_resnet34_equals_torchvisions_with_the_small_stem() -> None:
    enable_torchvision()
    from torchvision.models import resnet34

    ours = _trained_looking(ResNet(name="m", depth=34).network())
    with torch.device("meta"):
        other = resnet34(num_classes=10)
        other.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    other.maxpool = nn.Identity()
    names = {
        k: k.replace("shortcut", "downsample").replace("linear", "fc") for k in ours.state_dict()
    }
    other.load_state_dict({names[k]: v for k, v in ours.state_dict().items()}, assign=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), other.eval()(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_vgg16_bn_equals_torchvisions_with_the_small_classifier() -> None:
    enable_torchvision()
    from torchvision.models.vgg import VGG, cfgs, make_layers

    ours = _trained_looking(VGG16BN(name="m").network())
    with torch.device("meta"):
        other = VGG(make_layers(cfgs["D"], batch_norm=True), init_weights=False)
    other.avgpool, other.classifier = nn.Identity(), ours.classifier
    other.load_state_dict(ours.state_dict(), assign=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), other.eval()(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CifarResNet(name="m", depth=18), "6 n [+] 2"),
        (lambda: CifarResNet(name="m", shortcut="C"), "shortcut must be A or B, not 'C'"),
        (lambda: ResNet(name="m", depth=50), "18 or 34"),
        (lambda: DenseNetBC(name="m", depth=99), "6 n [+] 4"),
        (lambda: DenseNetBC(name="m", growth=0), "growth"),
        (lambda: DenseNetBC(name="m", reduction=0.0), "reduction"),
        (lambda: DigitsResNet(name="m", classes=0), "classes"),
        (lambda: DigitsResNet(name="m", sha256="abc"), "64 hexadecimal"),
    ],
)
def test_an_option_out_of_range_is_named(make: Callable[[], Model], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        make()

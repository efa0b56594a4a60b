"""Functions that become modules: the same bits, whatever they are called with."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.loading import load_network
from progip.models.rewrite import with_own_modules
from progip.models.torchvision_model import TorchvisionModel


class Functions(nn.Module):
    """One function between two layers, called as a user would."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.a, self.b, self.function = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x)))  # type: ignore[operator]


FUNCTIONS = {
    "relu_": lambda x: F.relu_(x),
    "relu, in place": lambda x: F.relu(x, True),
    "method": lambda x: x.relu_(),
    "relu6": lambda x: F.relu6(x, inplace=True),
    "leaky": lambda x: F.leaky_relu(x, 0.3),
    "leaky, in place": lambda x: F.leaky_relu(x, 0.3, True),
    "leaky, by keyword": lambda x: F.leaky_relu(x, negative_slope=0.2, inplace=True),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": lambda x: torch.selu(x),
    "celu": lambda x: F.celu(x, alpha=0.5),
    "sigmoid": lambda x: torch.sigmoid(x),
    "sigmoid method": lambda x: x.sigmoid(),
    "tanh": lambda x: x.tanh(),
    "softplus": lambda x: F.softplus(x, 2.0, 10.0),
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.5),
    "hardsigmoid": lambda x: F.hardsigmoid(x),
    "hardswish": lambda x: F.hardswish(x, True),
    "mish": lambda x: F.mish(x),
    "silu": lambda x: F.silu(x, inplace=True),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
}


def _ignores_the_result(x: Tensor) -> Tensor:
    F.relu_(x)
    return x + 1


def _reads_before_and_after(x: Tensor) -> Tensor:
    before = x * 2
    F.relu(x, inplace=True)
    return before + x


def _mean_with_a_last_true(x: Tensor) -> Tensor:
    weight = x.mean([2, 3], True)  # keepdim: nothing is done in place
    return F.relu(x * weight)


def _pool_with_a_last_true(x: Tensor) -> Tensor:
    pooled = F.max_pool2d(x, 2, 2, 0, 1, True)  # ceil_mode
    return F.relu(x + pooled.mean())


def _function_without_a_module(x: Tensor) -> Tensor:
    return F.relu(x + x.mean() + x.mean([2, 3], keepdim=True, dtype=torch.float32))


def _size_that_follows_the_input(x: Tensor) -> Tensor:
    return F.relu(x) + F.avg_pool2d(x, x.shape[2])


IN_PLACE = {
    f.__name__: f
    for f in (
        _ignores_the_result,
        _reads_before_and_after,
        _mean_with_a_last_true,
        _pool_with_a_last_true,
        _function_without_a_module,
        _size_that_follows_the_input,
    )
}


@torch.no_grad()
@pytest.mark.parametrize("name", [*FUNCTIONS, *IN_PLACE])
def test_same_bits_and_no_function_is_left(name: str) -> None:
    torch.manual_seed(0)
    network = Functions({**FUNCTIONS, **IN_PLACE}[name]).eval()
    x = torch.randn(2, 1, 8, 8)
    rewritten = with_own_modules(network)
    assert torch.equal(rewritten(x.clone()), network(x.clone()))
    modules = [m for m in rewritten.modules() if isinstance(m, nn.Module)]
    activations = [m for m in modules if type(m).__module__ == "torch.nn.modules.activation"]
    assert len(activations) == 1
    assert not any(getattr(m, "inplace", False) is True for m in activations)


class Aliased(nn.Module):
    """Tracing takes ``x += 1`` for ``x = x + 1``, and loses that ``same`` changes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mean((2, 3))
        same = x
        x += 1
        return self.fc(same * x)


@dataclass(kw_only=True)
class AliasedModel(Model):
    def network(self) -> nn.Module:
        return Aliased()

    def prepared(self, network: nn.Module) -> nn.Module:
        return with_own_modules(network)


def test_a_prepared_network_that_computes_something_else_is_refused() -> None:
    model = AliasedModel(name="aliased", channels=1, weights="random")
    with pytest.raises(ProgipError, match=r"'aliased': .*AliasedModel\.prepared\(\) .*up to"):
        load_network(model, image_shape=(1, 8, 8))


class Branches(nn.Module):
    """Sums, a concatenation, a product, sizes that are numbers, a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = F.relu(self.second(a))
        b += a
        c = torch.cat([a * b, b - 1], dim=1)
        side = c.size(2) * c.size(3)
        return self.fc(c.flatten(2).sum(2) / side)


def test_operations_become_modules() -> None:
    network = Branches().eval()
    images = torch.randn(2, 3, 6, 6)
    plain, whole = with_own_modules(network), with_own_modules(network, operations=True)
    expected = network(images)
    assert torch.equal(plain(images), expected)
    assert torch.equal(whole(images), expected)
    kinds = {name: type(module).__name__ for name, module in whole.named_modules()}
    assert kinds.pop("") == "GraphModule"
    assert kinds == {
        "first": "Conv2d",
        "second": "Conv2d",
        "relu": "ReLU",
        "add": "Add",
        "mul": "Multiply",
        "sub": "Subtract",
        "cat": "Concatenate",
        "flatten": "Flatten",
        "truediv": "Divide",
        "fc": "Linear",
    }
    assert "add" not in dict(plain.named_modules())


def test_sums_of_a_residual_network_can_be_hit() -> None:
    pytest.importorskip("torchvision")
    spec = TorchvisionModel(name="r", arch="resnet18", classes=10, weights="random")
    known = dict(load_network(spec, image_shape=(3, 32, 32)).named_modules())
    spec.operations = True
    named = dict(load_network(spec, image_shape=(3, 32, 32)).named_modules())
    sums = {f"layer{i}.{j}.add" for i in range(1, 5) for j in range(2)}
    assert set(named) - set(known) == sums


class Looping(Model):
    """A network whose control flow depends on values."""

    def network(self) -> nn.Module:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(12, 3)

            def forward(self, x: Tensor) -> Tensor:
                x = x.flatten(1)
                return self.fc(x) if x.sum() > 0 else self.fc(-x)

        return Net()


def test_what_cannot_be_traced_is_refused() -> None:
    spec = Looping(name="looping", classes=3, weights="random", operations=True)
    with pytest.raises(ProgipError, match="'looping': operations=true needs a network that torch"):
        load_network(spec, image_shape=(3, 2, 2))

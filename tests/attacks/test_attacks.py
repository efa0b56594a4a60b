"""Every attack keeps its budget in pixels, and finds what closed forms and a library find."""

from pathlib import Path

import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from progip.attacks.ascent import sign_ascent
from progip.attacks.base import Attack, Iterated, PixelNetwork
from progip.attacks.cw_inf import CWInf, margin
from progip.attacks.fgsm import FGSM
from progip.attacks.measuring import robustness
from progip.attacks.pgd import PGD
from progip.config import build, composed
from progip.errors import ProgipError

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    pytest.param(path.stem, marks=[pytest.mark.slow] * (path.stem == "auto_attack"))
    for path in sorted((ROOT / "conf/attack").glob("*.yaml"))
]
MEAN, STD = [0.2, 0.5, 0.7], [0.1, 0.3, 0.5]


def made(name: str, **options: float) -> Attack:
    overrides = [f"attack={name}", *(f"attack.{k}={v}" for k, v in options.items())]
    return build(composed(overrides, ROOT / "conf", primary="attack").attack, Attack, "attack")


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> PixelNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
    return PixelNetwork(plain, MEAN, STD).eval().requires_grad_(False)


@pytest.mark.parametrize("name", NAMES)
def test_keeps_its_budget_and_does_harm(name: str, network: PixelNetwork, pixels: Tensor) -> None:
    labels = network(pixels).argmax(1)
    attack = made(name, budget=60)
    before = torch.random.get_rng_state()
    found = robustness(network, pixels, labels, attack, batch_size=12)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert found == robustness(network, pixels, labels, attack, batch_size=12)
    assert found.clean.events == 12
    assert found.robust.events < 12
    assert 59.9 < found.largest_change < 60.001
    changed = attack.perturbed(network, pixels, labels).detach()
    assert ((changed >= 0) & (changed <= 1)).all()
    losses = [F.cross_entropy(network(x), labels) for x in (changed, pixels)]
    assert losses[0] > losses[1]


@pytest.mark.parametrize("name", NAMES)
def test_no_budget_changes_nothing(name: str, network: PixelNetwork, pixels: Tensor) -> None:
    if name == "auto_attack":
        pytest.skip("FAB divides by the budget")
    labels = network(pixels).argmax(1)
    assert robustness(network, pixels, labels, made(name, budget=0)).robust.events == 12


@given(budget=st.floats(0.5, 60), seed=st.integers(0, 2**16))
def test_a_linear_network_falls_exactly_where_its_margin_is_below_the_budget(
    budget: float, seed: int
) -> None:
    """A difference w x + b falls by eps * sum |w / std| away from black and white, no further."""
    generator = torch.Generator().manual_seed(seed)
    pixels = 0.3 + 0.4 * torch.rand(20, 3, 2, 2, generator=generator)
    linear = nn.Linear(12, 2)
    with torch.no_grad():
        linear.weight.copy_(0.05 * torch.randn(2, 12, generator=generator))
    network = PixelNetwork(nn.Sequential(nn.Flatten(), linear), MEAN, STD)
    difference = (linear.weight[0] - linear.weight[1]).detach().view(1, 3, 2, 2)
    reach = difference.abs() / torch.tensor(STD).view(1, 3, 1, 1)
    logits = network(pixels).detach()
    labels = logits.argmax(1)
    fall = (budget / 255 * reach).sum()
    distance = (logits[:, 0] - logits[:, 1]).abs() - fall
    sure = distance.abs() > 1e-4  # rounding decides the others
    for attack in (
        FGSM(name="fgsm", budget=budget),
        PGD(name="pgd", budget=budget, steps=12, step=budget / 4),
        CWInf(name="cw_inf", budget=budget, steps=12, step=budget / 4),
    ):
        found = attack.perturbed(network, pixels, labels)
        survives = network(found).argmax(1) == labels
        assert torch.equal(survives[sure], (distance > 0)[sure])


def test_our_steps_are_those_of_the_library(network: PixelNetwork, pixels: Tensor) -> None:
    labels = network(pixels).argmax(1)
    ours = sign_ascent(
        lambda x: F.cross_entropy(network(x), labels),
        pixels,
        pixels,
        epsilon=8 / 255,
        step=2 / 255,
        steps=7,
    )
    library = torchattacks.PGD(network, 8 / 255, 2 / 255, 7, random_start=False)
    # the library projects the difference, we project the image: the last bit may differ
    assert torch.allclose(ours, library(pixels, labels), atol=2e-7, rtol=0)


@given(st.integers(0, 2**16))
def test_margin_is_the_naive_one(seed: int) -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    labels = torch.tensor([0, 1, 2, 3, 1])
    naive = [
        max(float(row[j]) for j in range(4) if j != label) - float(row[label])
        for row, label in zip(logits, labels.tolist(), strict=True)
    ]
    assert margin(logits, labels).tolist() == pytest.approx(naive)


def test_more_steps_leave_no_more(network: PixelNetwork, pixels: Tensor) -> None:
    labels = network(pixels).argmax(1)
    fgsm, pgd = (robustness(network, pixels, labels, made(n, budget=40)) for n in ("fgsm", "pgd"))
    assert pgd.robust.events <= fgsm.robust.events


class Beyond(Iterated):
    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return images + 2 * self.epsilon


class Lost(Beyond):
    """Divides by a gradient of zero."""

    def perturbed(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return images * torch.nan


def test_an_attack_beyond_its_budget_is_refused(network: PixelNetwork, pixels: Tensor) -> None:
    with pytest.raises(ProgipError, match="'far' changed a pixel by 16"):
        robustness(network, pixels, network(pixels).argmax(1), Beyond(name="far"))
    with pytest.raises(ProgipError, match="'lost' changed a pixel by nan"):
        robustness(network, pixels, network(pixels).argmax(1), Lost(name="lost"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget": -1}, "budget=-1"),
        ({"budget": 300}, "budget=300"),
        ({"steps": 0}, "steps=0"),
        ({"step": 0}, "step=0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, float], named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        made("pgd", **options)

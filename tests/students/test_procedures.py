"""Losses against loops that are written out, and against what is known in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.students.procedures import ARD, RSLAD, TRADES, Procedure

BUDGET = {"budget": 25.5, "step": 5.1, "steps": 3}  # .1, .02


class Small(nn.Module):
    """Knows in which mode it was called, and with what."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        self.calls: list[tuple[bool, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.training, x.detach()))
        return self.layers(x)


@pytest.fixture
def both() -> tuple[Small, Small]:
    return Small(1).train(), Small(2).eval()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, 4, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 2, 0, 1])


def run(procedure: Procedure, student: Small, teacher: Small | None) -> tuple[Tensor, Tensor]:
    """The loss, and the attacked images: what the student saw, in training mode, that is not x."""
    x, y = batch()
    student.calls.clear()
    torch.manual_seed(7)
    loss = procedure.loss(student, teacher, x, y)
    attacked = [seen for training, seen in student.calls if training and not torch.equal(seen, x)]
    assert len(attacked) == 1
    assert student.training
    return loss, attacked[0]


def softmax(logits: list[float], heat: float = 1.0) -> list[float]:
    powers = [math.exp(value / heat) for value in logits]
    return [p / sum(powers) for p in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def answers(network: Small, x: Tensor) -> list[list[float]]:
    return network.layers(x).tolist()


def test_trades_by_hand(both: tuple[Small, Small]) -> None:
    student, _ = both
    x, y = batch()
    loss, attacked = run(TRADES(beta=3.0, **BUDGET), student, None)
    expected = 0.0
    for clean, found, label in zip(
        answers(student, x), answers(student, attacked), y.tolist(), strict=True
    ):
        own = softmax(clean)
        expected += -math.log(own[label]) + 3 * divergence(own, softmax(found))
    assert loss.item() == pytest.approx(expected / 5)


def test_rslad_by_hand(both: tuple[Small, Small]) -> None:
    student, teacher = both
    x, _ = batch()
    loss, attacked = run(RSLAD(name="rslad", **BUDGET), student, teacher)
    expected = 0.0
    for soft, clean, found in zip(
        answers(teacher, x), answers(student, x), answers(student, attacked), strict=True
    ):
        wanted = softmax(soft)
        expected += 5 / 6 * divergence(wanted, softmax(found))
        expected += 1 / 6 * divergence(wanted, softmax(clean))
    assert loss.item() == pytest.approx(expected / (5 * 3))  # mean over batch and classes


@pytest.mark.parametrize("alpha", [1.0, 0.75])
def test_ard_by_hand(both: tuple[Small, Small], alpha: float) -> None:
    student, teacher = both
    x, y = batch()
    loss, attacked = run(ARD(temperature=4.0, alpha=alpha, **BUDGET), student, teacher)
    expected = 0.0
    rows = zip(
        answers(teacher, x), answers(student, x), answers(student, attacked), y.tolist(),
        strict=True,
    )  # fmt: skip
    for soft, clean, found, label in rows:
        apart = divergence(softmax(soft, 4.0), softmax(found, 4.0))
        expected += alpha * 16 * apart / 3 - (1 - alpha) * math.log(softmax(clean)[label])
    assert loss.item() == pytest.approx(expected / 5)


@pytest.mark.parametrize("procedure", [TRADES(**BUDGET), RSLAD(name="r", **BUDGET), ARD(**BUDGET)])
def test_the_attack_stays_in_its_budget_and_is_made_in_evaluation_mode(
    both: tuple[Small, Small], procedure: Procedure
) -> None:
    student, teacher = both
    x, _ = batch()
    _, attacked = run(procedure, student, teacher)
    change = (attacked - x).abs()
    assert float(change.max()) <= 0.1 + 1e-9
    assert float(change.max()) > 0.05
    assert 0 <= float(attacked.min()) <= float(attacked.max()) <= 1
    in_training = sum(training for training, _ in student.calls)
    assert in_training == (1 if isinstance(procedure, ARD) else 2)
    assert len(student.calls) - in_training == 3 + isinstance(procedure, TRADES)
    assert not any(training for training, _ in teacher.calls)
    assert all(torch.equal(seen, x) for _, seen in teacher.calls)  # clean images alone


def test_the_attack_finds_the_worst_images_of_a_linear_student() -> None:
    """Two classes: the divergence from the teacher grows monotonically along one direction."""
    student, teacher = nn.Linear(3, 2).double(), nn.Linear(3, 2).double()
    with torch.no_grad():
        student.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]]))
        student.bias.zero_()
        teacher.weight.zero_()
        teacher.bias.copy_(torch.tensor([0.0, 9.0]))  # wants class 1
    seen: list[Tensor] = []
    student.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    RSLAD(name="r", budget=25.5, step=5.1, steps=8).loss(student, teacher, x, torch.tensor([1, 1]))
    expected = x + 0.1 * torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert any(torch.allclose(images, expected) for images in seen)


def test_gradients_of_trades_go_through_both_answers(both: tuple[Small, Small]) -> None:
    """The usual code differentiates the clean answer in the divergence, too."""
    student, _ = both
    x, y = batch()
    loss, attacked = run(TRADES(beta=2.0, **BUDGET), student, None)
    found = torch.autograd.grad(loss, list(student.layers.parameters()))
    p, q = student.layers(x).log_softmax(1), student.layers(attacked).log_softmax(1)
    whole = -p[range(5), y].mean() + 2 * (p.exp() * (p - q)).sum(1).mean()
    for ours, theirs in zip(
        found, torch.autograd.grad(whole, list(student.layers.parameters())), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ProgipError, match="procedure 'ard': alpha=2 must be in"):
        ARD(alpha=2)
    with pytest.raises(ProgipError, match="steps=0 must be at least 1"):
        TRADES(steps=0)
    assert {c.__name__ for c in Procedure.__subclasses__()} == {"TRADES", "RSLAD", "ARD"}

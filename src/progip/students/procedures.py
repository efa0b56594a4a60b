"""What a student is trained on: adversarial images of its own, and the loss on them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from progip.attacks.ascent import sign_ascent
from progip.attacks.base import LEVELS
from progip.errors import ProgipError


@dataclass(kw_only=True)
class Procedure(ABC):
    """One loss with the attack inside it; the fields are the options of its YAML.

    Attributes:
        name: the name of its YAML file.
        budget, step: of the attack, in pixel levels of 255.
        steps: how many it takes.
    """

    #: does the loss look at a teacher?
    distils: ClassVar[bool] = True

    name: str
    budget: float = 8.0
    step: float = 2.0
    steps: int = 10

    def __post_init__(self) -> None:
        for option, holds, rule in (
            ("budget", 0 < self.budget <= LEVELS, f"must be in (0, {LEVELS:g}]"),
            ("step", 0 < self.step <= LEVELS, f"must be in (0, {LEVELS:g}]"),
            ("steps", self.steps >= 1, "must be at least 1"),
        ):
            self._must(option, holds, rule)

    def _must(self, option: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ProgipError(f"procedure '{self.name}': {option}={getattr(self, option)} {rule}")

    @abstractmethod
    def loss(self, student: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
        """The loss of a batch, with a graph; draws from the global generators of torch.

        Args:
            student: pixels in [0, 1] to logits, in training mode; in evaluation mode while it is
                attacked.
            teacher: the same, in evaluation mode; it sees clean images alone.
            x: (n, channels, h, w) in [0, 1]; y: (n,) labels.
        """

    def _attacked(
        self, student: nn.Module, objective: Callable[[Tensor], Tensor], x: Tensor, start: Tensor
    ) -> Tensor:
        student.eval()
        step = self.step / LEVELS
        found = sign_ascent(
            lambda images: objective(student(images)),
            x,
            start,
            epsilon=self.budget / LEVELS,
            step=step,
            steps=self.steps,
        )
        student.train()
        return found


@dataclass(kw_only=True)
class TRADES(Procedure):
    """CE(f(x), y) + beta KL(f(x) || f(x')), where x' makes the divergence large. No teacher.

    Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan: Theoretically principled trade-off between robustness
    and accuracy, ICML 2019, equation 5; divergence summed over classes, mean over the batch.

    Attributes:
        beta: weight of the divergence.
    """

    distils: ClassVar[bool] = False

    name: str = "trades"
    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._must("beta", self.beta >= 0, "must be 0 or more")

    def loss(self, student: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
        student.eval()
        with torch.no_grad():
            clean = F.softmax(student(x), 1)
        found = self._attacked(student, lambda out: _divergence(out, clean), x, _noisy(x))
        logits = student(x)
        apart = F.kl_div(
            F.log_softmax(student(found), 1), F.softmax(logits, 1), reduction="batchmean"
        )
        return F.cross_entropy(logits, y) + self.beta * apart


@dataclass(kw_only=True)
class RSLAD(Procedure):
    """5/6 KL(t || f(x')) + 1/6 KL(t || f(x)): soft labels t of the teacher for clean images.

    Zi, Zhao, Ma, Jiang: Revisiting adversarial robustness distillation, ICCV 2021; ProARD's own.
    x' makes the first divergence large; both are means over batch and classes.
    """

    name: str = "rslad"

    def loss(self, student: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
        soft = F.softmax(_answer(teacher, x), 1)
        found = self._attacked(student, lambda out: _divergence(out, soft), x, _noisy(x))
        attacked, clean = (F.log_softmax(student(images), 1) for images in (found, x))
        mean = F.kl_div(attacked, soft, reduction="none").mean()
        return 5 / 6 * mean + 1 / 6 * F.kl_div(clean, soft, reduction="none").mean()


@dataclass(kw_only=True)
class ARD(Procedure):
    """alpha T^2 KL(t_T || f_T(x')) + (1 - alpha) CE(f(x), y), both softened by temperature T.

    Goldblum, Fowl, Feizi, Goldstein: Adversarially robust distillation, AAAI 2020, equation 5. x'
    makes the cross-entropy large, from a uniformly random start; the divergence is the mean over
    batch and classes.

    Attributes:
        temperature: T.
        alpha: weight of the divergence.
    """

    name: str = "ard"
    temperature: float = 30.0
    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._must("temperature", self.temperature > 0, "must be above 0")
        self._must("alpha", 0 <= self.alpha <= 1, "must be in [0, 1]")

    def loss(self, student: nn.Module, teacher: nn.Module | None, x: Tensor, y: Tensor) -> Tensor:
        heat, epsilon = self.temperature, self.budget / LEVELS
        soft = F.softmax(_answer(teacher, x) / heat, 1)
        start = x + torch.empty_like(x).uniform_(-epsilon, epsilon)
        found = self._attacked(
            student, lambda out: F.cross_entropy(out, y, reduction="sum"), x, start
        )
        attacked = F.log_softmax(student(found) / heat, 1)
        loss = self.alpha * heat**2 * F.kl_div(attacked, soft, reduction="none").mean()
        if self.alpha < 1:
            loss = loss + (1 - self.alpha) * F.cross_entropy(student(x), y)
        return loss


def _noisy(x: Tensor) -> Tensor:
    return x + 0.001 * torch.randn_like(x)


def _divergence(logits: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(logits, 1), target, reduction="sum")


@torch.no_grad()
def _answer(teacher: nn.Module | None, x: Tensor) -> Tensor:
    assert teacher is not None
    logits: Tensor = teacher(x)
    return logits

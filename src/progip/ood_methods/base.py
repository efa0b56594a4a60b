"""What an OOD method is: one pure function of a batch that announces its passes.

Of a gradient-based input-perturbation (GIP) detector they are forward, gradient (and perturbation),
second forward. Executors run that one function, with hooks that flip bits or by tracing it; a
method never knows about faults.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from progip.described import Described
from progip.errors import ProgipError
from progip.records import PASSES, POPULATIONS

EnterPass = Callable[[str], None]


#: what each pass lets a protection see
_EVIDENCE = {
    "first_forward": ("nonfinite_logits", "range_excess_first"),
    "backward": ("grad_max", "nonfinite_gradient"),
    "second_forward": ("range_excess_second",),
}


class Detection(NamedTuple):
    """What a detector computed of a batch of B images; every row depends on its own image alone.

    Attributes:
        logits: (B, classes) of the first forward pass; their argmax is the class.
        gradient: gradient of the detector's loss at the image, shape of the image batch.
        perturbed: the perturbed images, same shape.
        score: (B,) float64; higher means more in-distribution.
        later_gradients: those of further steps, each as ``gradient``, where there are any.
    """

    logits: Tensor
    gradient: Tensor
    perturbed: Tensor
    score: Tensor
    later_gradients: tuple[Tensor, ...] = ()


def no_pass(name: str) -> None:
    """The observer of passes for users who do not inject faults."""


@dataclass(kw_only=True)
class OODMethod(Described, ABC):
    """One method; the dataclass fields of a subclass are the options of its YAML file.

    Attributes:
        name: what result rows call it; the name of its YAML file.

    Class attributes:
        gradient_vanishes: whether a corrupted forward pass can drive the gradient to zero, so that
            an almost-zero gradient is a symptom of a fault (ProGIP, first detector).
        passes: those that ``detect`` announces (``progip.passes``); a fault can hit no other.
        verdicts: whether it tells in- from out-of-distribution inputs at all.
        learns_perturbed: whether what ``fit`` learns depends on the perturbation of the images.

    What a protection can be asked to look at follows from ``passes`` and ``verdicts``: see
    ``evidence``. A method that computes no gradient leaves ``backward`` out of ``passes``.
    """

    name: str

    gradient_vanishes: ClassVar[bool]
    passes: ClassVar[tuple[str, ...]] = PASSES
    verdicts: ClassVar[bool] = True
    learns_perturbed: ClassVar[bool] = False

    @property
    def evidence(self) -> tuple[str, ...]:
        """The columns of evidence (``protections.base.EVIDENCE``) that it computes."""
        found = [name for made in self.passes for name in _EVIDENCE.get(made, ())]
        return (*found, *(("score", "nonfinite_score") if self.verdicts else ()))

    @property
    def populations(self) -> tuple[str, ...]:
        """Those whose images it can be asked about."""
        return POPULATIONS if self.verdicts else ("id",)

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Run the network over (images, labels) batches of ID training data and learn from them.

        By default nothing is learnt; the network still sees every batch, because the value ranges
        of its layers are profiled meanwhile.
        """
        with torch.no_grad():
            for images, _ in batches:
                network(images)

    def state(self) -> dict[str, Tensor]:
        """What ``fit`` learned, for the cache; empty where there is nothing to learn."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave."""

    @abstractmethod
    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        """Run every pass on images (B, channels, height, width), already normalised.

        ``enter`` is told the name of each pass just before it begins. Parameters of the network
        are expected to be frozen and the network in eval mode.
        """

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        """The confidence score (B,) float64 of ``detect``."""
        return self.detect(network, images).score

    def unperturbed(self) -> "OODMethod | None":
        """The same method without its perturbation, not fitted; None where it perturbs nothing.

        Reports put its figures beside the method's own, so that what the perturbation brings is
        seen.
        """
        return None


@dataclass(kw_only=True)
class GradientStep(OODMethod):
    """A detector that moves its input one step along the sign of a gradient.

    Attributes:
        epsilon: size of the perturbation, in [0, 1] pixel units.
        std: per-channel divisor of the input normalisation; the step is divided by it.
        sign: ``ge`` (+1 where the gradient is >= 0, else -1, so NaN gives -1; the published code)
            or ``sign`` (torch.sign: 0 at 0 and, in PyTorch, at NaN, too).
        rescale: ``std`` (the step divided by std for every image) or ``none`` (epsilon in
            normalised units, which the published ODIN code applies to all but the first image of
            a batch; kept to reproduce those numbers).
    """

    sentence: ClassVar[str] = (
        "A gradient-based input-perturbation detector runs a network forward, backward and "
        "forward again: the first pass gives the class, the gradient perturbs the image, the "
        "second pass gives the score that tells in-distribution (ID) from out-of-distribution "
        "(OOD) inputs."
    )

    epsilon: float = 0.0014
    std: list[float] = field(default_factory=lambda: [1.0])
    sign: str = "ge"
    rescale: str = "std"

    def __post_init__(self) -> None:
        check_choice(self.name, "sign", self.sign, ("ge", "sign"))
        check_choice(self.name, "rescale", self.rescale, ("std", "none"))
        if self.epsilon < 0 or not self.std or any(s <= 0 for s in self.std):
            raise ProgipError(
                f"ood_method '{self.name}': epsilon must not be negative and std must be one or "
                f"more positive numbers, got epsilon={self.epsilon}, std={list(self.std)}"
            )

    def unperturbed(self) -> OODMethod | None:
        return replace(self, epsilon=0.0) if self.epsilon else None

    def gradient(self, loss: Tensor, images: Tensor) -> Tensor:
        """Of the losses (B,) at the images, each of its image alone."""
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(
                loss, images, torch.ones_like(loss), allow_unused=True
            )
        if gradient is None:
            raise ProgipError(
                f"ood_method '{self.name}' needs the gradient of the network's output at its "
                "image, and this network gives none: it runs under no_grad, or computes with "
                "integers or detached values on the way; ood_method=none needs no gradient"
            )
        return gradient

    def perturb(self, images: Tensor, gradient: Tensor) -> Tensor:
        """x - epsilon * sign(gradient) / std; no clamp to the valid pixel range."""
        if self.sign == "ge":
            direction = (gradient >= 0).to(images.dtype) * 2 - 1
        else:
            direction = torch.sign(gradient)
        if self.rescale == "std":
            if len(self.std) not in (1, images.shape[1]):
                raise ProgipError(
                    f"ood_method '{self.name}': std has {len(self.std)} values, and the images "
                    f"have {images.shape[1]} channels; give one value per channel"
                )
            direction = direction / images.new_tensor(list(self.std)).view(1, -1, 1, 1)
        return images - self.epsilon * direction


@dataclass(kw_only=True)
class InputPerturbation(GradientStep):
    """A detector that scores its input after a step along the gradient of its own loss."""

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        images = images.detach().requires_grad_(True)
        with torch.enable_grad():
            enter("first_forward")
            logits, loss = self.first_forward(network, images)
            enter("backward")
            gradient = self.gradient(loss, images)
        perturbed = self.perturb(images.detach(), gradient)
        with torch.no_grad():
            enter("second_forward")
            score = self.second_forward(network, perturbed)
        return Detection(logits.detach(), gradient, perturbed, score)

    def score(self, network: nn.Module, images: Tensor) -> Tensor:
        if self.epsilon:
            return super().score(network, images)
        with torch.no_grad():  # nothing moves, so the second forward pass is all there is
            return self.second_forward(network, images)

    @abstractmethod
    def first_forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, classes) and the loss per image (B,) whose gradient perturbs the image."""

    @abstractmethod
    def second_forward(self, network: nn.Module, images: Tensor) -> Tensor:
        """The score (B,) float64 of the perturbed images."""


def finite_or_nan(score: Tensor, values: Tensor) -> Tensor:
    """A score (B,), NaN where one of the values (B, n) it was made of is not finite.

    A plain maximum would take a logit of plus infinity for the surest of inputs.
    """
    return score.masked_fill(~torch.isfinite(values).all(1), float("nan"))


def check_choice(owner: str, key: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ProgipError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ProgipError(f"'{owner}': {key}={value!r} is not one of {', '.join(choices)}")

"""AdaSCALE: scaling of activations by a percentile that follows how they shift."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.features import input_of, penultimate_module
from progip.ood_methods.base import (
    Detection,
    EnterPass,
    GradientStep,
    check_choice,
    finite_or_nan,
    no_pass,
)


@dataclass(kw_only=True)
class AdaSCALE(GradientStep):
    """Adaptive scaling of activations (Regmi, 2025).

    With the penultimate feature a (d values) of the image, and the gradient g of its largest logit:

    1. x~ = x + epsilon sign(g) at the share ``pixels`` of elements with the smallest |g|, x
       elsewhere; its feature is a~ (second forward pass).
    2. Q' = shift_weight * sum_J |a_j - a~_j| + sum_I relu(a~_i), J and I the largest ``shift_top``
       and ``feature_top`` per cent of a, at least one.
    3. p = p_low + (1 - F(Q')) (p_high - p_low), F the share of training images whose Q' is no
       larger.
    4. r = sum relu(a) / (sum of the d - round(d p / 100) largest values of relu(a)).
    5. The network's head gives logits of exp(r) a (``variant: activation``, AdaSCALE-A), or r^2
       times those of a (``logit``, AdaSCALE-L); the score is their log-sum-exp.

    A NaN of g is the largest of all, and perturbs nothing. The head of step 5 belongs to the second
    forward pass, as the second call of that layer; what its first call gives is not used. The score
    is NaN where a logit, a feature or one of the logits of step 5 is not finite.

    Attributes:
        feature_layer: the head, whose input is the feature; default the last Linear.
        variant: ``activation`` or ``logit``.
        pixels, shift_weight, shift_top, feature_top, p_low, p_high: see above; the published
            o = 0.05, lambda = 10, k_2 = 1, k_1 = 5. The percentiles are chosen for each network.
        samples: how many training images F is made of; the published code takes 5000 of an ID
            validation set.

    Source: the paper; ``adascale_a`` and ``adascale_l`` of OpenOOD.
    """

    sentence: ClassVar[str] = (
        "AdaSCALE runs a network forward, which gives the class, and backward, perturbs the pixels "
        "that matter least, and runs forward again: how far large activations shift sets a "
        "percentile by which activations are scaled, and the energy of the scaled logits tells "
        "in-distribution (ID) from out-of-distribution (OOD) inputs [AdaSCALE]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "AdaSCALE": "Regmi: AdaSCALE: Adaptive scaling for OOD detection. 2025. "
        "https://arxiv.org/abs/2503.08023",
    }

    epsilon: float = 0.5
    sign: str = "sign"
    rescale: str = "none"
    feature_layer: str | None = None
    variant: str = "activation"
    pixels: float = 0.05
    shift_weight: float = 10.0
    shift_top: float = 1.0
    feature_top: float = 5.0
    p_low: float = 75.0
    p_high: float = 85.0
    samples: int = 5000

    gradient_vanishes: ClassVar[bool] = False  # a logit is not saturated
    learns_perturbed: ClassVar[bool] = True  # how far features shift

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "variant", self.variant, ("activation", "logit"))
        shares = (self.shift_top, self.feature_top)
        if not (
            0 <= self.pixels <= 1
            and all(0 < share <= 100 for share in shares)
            and 0 < self.p_low <= self.p_high < 100
            and self.samples >= 1
        ):
            raise ProgipError(
                f"ood_method '{self.name}': pixels must be from 0 to 1, shift_top and feature_top "
                "above 0 and at most 100, 0 < p_low <= p_high < 100 and samples at least 1, got "
                f"pixels={self.pixels}, shift_top={self.shift_top}, "
                f"feature_top={self.feature_top}, p_low={self.p_low}, p_high={self.p_high}, "
                f"samples={self.samples}"
            )
        self._shifts: Tensor | None = None

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Q' of the first ``samples`` images of the ID training set.

        Value ranges that are profiled meanwhile are those of perturbed images, too.
        """
        shifts: list[Tensor] = []
        for images, _ in batches:
            if sum(map(len, shifts)) < self.samples:
                _, _, _, feature, other = self._passes(network, images, no_pass)
                shifts.append(self.shift(feature, other).cpu())
            else:
                with torch.no_grad():
                    network(images)
        self._shifts = torch.cat(shifts)[: self.samples].sort().values

    def state(self) -> dict[str, Tensor]:
        if self._shifts is None:
            raise ProgipError(f"ood_method '{self.name}': call fit before using it")
        return {"shifts": self._shifts}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._shifts = state["shifts"].clone()

    def detect(self, network: nn.Module, images: Tensor, enter: EnterPass = no_pass) -> Detection:
        logits, gradient, perturbed, feature, other = self._passes(network, images, enter)
        scale = self.scale(feature, self.percentile(self.shift(feature, other))).unsqueeze(1)
        with torch.no_grad():
            head = penultimate_module(network, self.feature_layer)
            if self.variant == "activation":
                scaled = head(feature * torch.exp(scale).to(feature.dtype)).double()
            else:
                scaled = head(feature).double() * scale.square()
        score = torch.logsumexp(scaled, 1)
        for values in (logits, feature, other, scaled):
            score = finite_or_nan(score, values)
        return Detection(logits, gradient, perturbed, score)

    def shift(self, feature: Tensor, other: Tensor) -> Tensor:
        """Q' (B,) float64 of features (B, d) of the images and of the perturbed ones."""
        order = feature.sort(dim=1, descending=True, stable=True).indices
        count = feature.shape[1]
        moved, kept = (
            values.double().gather(1, order[:, : max(int(count * share / 100), 1)]).sum(1)
            for values, share in (
                ((feature - other).abs(), self.shift_top),
                (torch.relu(other), self.feature_top),
            )
        )
        return self.shift_weight * moved + kept

    def percentile(self, shift: Tensor) -> Tensor:
        """p (B,) of Q' (B,)."""
        known = self.state()["shifts"].to(shift.device)
        share = torch.searchsorted(known, shift, right=True).double() / len(known)
        return self.p_low + (1 - share) * (self.p_high - self.p_low)

    def scale(self, feature: Tensor, percentile: Tensor) -> Tensor:
        """r (B,) float64 of features (B, d)."""
        active = torch.relu(feature.double()).sort(dim=1, descending=True).values
        count = feature.shape[1]
        # no arithmetic behind long(): an executor may put 0 into rows that it does not need, at any
        # operation, and an index must stay one
        last = (count - 1 - torch.round(count * percentile / 100)).clamp(min=0).long()
        sums = active.cumsum(1)
        return sums[:, -1] / sums.gather(1, last.unsqueeze(1)).squeeze(1)

    def perturb(self, images: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.abs().flatten(1)
        least = size.argsort(dim=1, stable=True)[:, : int(size.shape[1] * self.pixels)]
        chosen = torch.zeros_like(size, dtype=torch.bool).scatter(1, least, True)
        return torch.where(chosen.view(images.shape), super().perturb(images, gradient), images)

    def _passes(
        self, network: nn.Module, images: Tensor, enter: EnterPass
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits, gradient, perturbed images, and the features of the images and of those."""
        images = images.detach().requires_grad_(True)
        with input_of(penultimate_module(network, self.feature_layer)) as features:
            with torch.enable_grad():
                enter("first_forward")
                logits = network(images)
                loss = -logits.amax(1)
                enter("backward")
                gradient = self.gradient(loss, images)
            perturbed = self.perturb(images.detach(), gradient)
            with torch.no_grad():
                enter("second_forward")
                network(perturbed)
        if len(features) != 2 or features[0].dim() != 2:
            raise ProgipError(
                f"ood_method '{self.name}': the feature layer was not called as a module, once in "
                "each forward pass and with features (images, values); name another one with "
                "ood_method.feature_layer"
            )
        feature, other = (f.detach() for f in features)
        return logits.detach(), gradient, perturbed, feature, other

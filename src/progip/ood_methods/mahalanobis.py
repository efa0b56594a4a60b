"""Mahalanobis: distance of the penultimate feature to the nearest class mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.covariance import empirical_covariance
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.features import input_of, penultimate_module
from progip.ood_methods.base import InputPerturbation, check_choice


@dataclass(kw_only=True)
class Mahalanobis(InputPerturbation):
    """Mahalanobis distance-based confidence on one feature layer (Lee et al., NeurIPS 2018).

    M(x) = max_c -(f(x) - mu_c)^T P (f(x) - mu_c), with class means mu_c and P the pseudo-inverse
    of the tied covariance, in float64. With P = W^T W the distance is |W f - W mu_c|^2, which can
    not become negative. The loss of an image is -M, so the perturbation raises M.

    Attributes:
        feature: ``penultimate`` (the input of the network's head) or ``logits``.
        feature_layer: the module whose input is the penultimate feature; default the last Linear.
        half: include the factor 0.5 of the published code (paper eq. 2 has none).
        eigenvalue_cutoff: eigenvalues of the covariance below this share of the largest one are
            treated as zero; without it nearly collinear features give an indefinite precision.
    """

    sentence: ClassVar[str] = InputPerturbation.sentence + (
        " The score of the Mahalanobis detector is the negative distance of the "
        "penultimate feature to the nearest class mean, under the tied covariance of "
        "the training features [Mahalanobis]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "Mahalanobis": "Lee, Lee, Lee, Shin: A simple unified framework for detecting out-of-"
        "distribution samples and adversarial attacks. NeurIPS 2018. "
        "https://arxiv.org/abs/1807.03888",
    }

    feature: str = "penultimate"
    feature_layer: str | None = None
    half: bool = False
    eigenvalue_cutoff: float = 1e-7

    gradient_vanishes: ClassVar[bool] = False  # a corrupted feature enlarges it, quadratically

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.name, "feature", self.feature, ("penultimate", "logits"))
        self._whitening: Tensor | None = None
        self._whitened_means: Tensor | None = None

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Class means and tied covariance over all (images, labels) of the ID training set.

        Raises:
            ProgipError: a feature is not finite, or a class has no training image.
        """
        features, labels = [], []
        with torch.no_grad():
            for images, targets in batches:
                features.append(self._forward(network, images)[1].double().cpu().numpy())
                labels.append(targets.cpu().numpy())
        f, y = np.concatenate(features), np.concatenate(labels)
        if not np.isfinite(f).all():
            raise ProgipError(f"ood_method '{self.name}': a training feature is not finite")
        present = np.unique(y)
        if len(present) != present.max() + 1:
            raise ProgipError(
                f"ood_method '{self.name}': some of the {present.max() + 1} classes have no "
                f"training image (present: {present.tolist()})"
            )
        means = np.stack([f[y == c].mean(0) for c in present])
        covariance = empirical_covariance(f - means[y], assume_centered=False)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        keep = eigenvalues > self.eigenvalue_cutoff * eigenvalues[-1]
        whitening = vectors[:, keep] / np.sqrt(eigenvalues[keep])
        self.load_state(
            {
                "whitening": torch.from_numpy(whitening),
                "whitened_means": torch.from_numpy(means @ whitening),
            }
        )

    def state(self) -> dict[str, Tensor]:
        if self._whitening is None or self._whitened_means is None:
            raise ProgipError(f"ood_method '{self.name}': call fit before using it")
        return {"whitening": self._whitening, "whitened_means": self._whitened_means}

    def load_state(self, state: dict[str, Tensor]) -> None:
        # fresh row-major copies: a matrix product's last bits depend on strides and alignment
        self._whitening, self._whitened_means = (
            state[name].clone(memory_format=torch.contiguous_format)
            for name in ("whitening", "whitened_means")
        )

    def class_scores(self, feature: Tensor) -> Tensor:
        """M_c, shape (B, classes), float64, of features (B, dimensions)."""
        state = {name: t.to(feature.device) for name, t in self.state().items()}
        whitened = feature.double() @ state["whitening"]
        distance = (whitened.unsqueeze(1) - state["whitened_means"]).square().sum(2)
        return distance * (-0.5 if self.half else -1.0)

    def first_forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        logits, feature = self._forward(network, images)
        scores = self.class_scores(feature)
        closest = scores.argmax(1, keepdim=True)
        return logits, -scores.gather(1, closest).squeeze(1)

    def second_forward(self, network: nn.Module, images: Tensor) -> Tensor:
        return self.class_scores(self._forward(network, images)[1]).amax(1)

    def _forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        if self.feature == "logits":
            logits = network(images)
            return logits, logits
        with input_of(penultimate_module(network, self.feature_layer)) as captured:
            logits = network(images)
        if not captured:
            raise ProgipError(
                f"ood_method '{self.name}': the feature layer was not called as a module; name "
                "another one with ood_method.feature_layer"
            )
        return logits, captured[0].flatten(1)

"""OpenMax: the probability that an input is of no known class."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.stats import weibull_min
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.class_means import of_classes
from progip.ood_methods.logit_score import LogitScore

#: libMR moves a tail to begin here before it fits; cdf and fit then use the moved distances
SHIFT = 10_000.0


@dataclass(kw_only=True)
class OpenMax(LogitScore):
    """OpenMax (Bendale, Boult, CVPR 2016) on the logits z.

    For every class c the mean mu_c of the logits of its correctly classified training images, and
    a Weibull distribution W_c of the largest of their distances |z - mu_c|. The i-th largest of the
    ``alpha`` largest logits loses the share v = (alpha + 1 - i) / alpha * W_c(|z - mu_c|) to the
    unknown class: z'_c = z_c (1 - v_c), z'_0 = sum_c z_c v_c. The score is -softmax(z')_0: minus
    the probability of the unknown class, which orders inputs as one minus it does and stays
    distinct where that rounds to one.

    Attributes:
        tail: how many of the largest distances of a class are fitted; 20 in the paper.
        alpha: how many of the largest logits are revised; all where there are fewer classes.

    Source: the paper, algorithms 1 and 2; the fit is that of libMR (maximum likelihood on the
    tail moved to 10000) with scipy.stats.weibull_min.
    """

    sentence: ClassVar[str] = (
        "The detector runs the network forward once; its score is minus the OpenMax probability of "
        "an unknown class, by Weibull fits of the distances to class mean logits [OpenMax]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "OpenMax": "Bendale, Boult: Towards open set deep networks. CVPR 2016. "
        "https://arxiv.org/abs/1511.06233",
    }

    tail: int = 20
    alpha: int = 10

    def __post_init__(self) -> None:
        if self.tail < 2 or self.alpha < 1:
            raise ProgipError(
                f"ood_method '{self.name}': tail must be at least 2 and alpha at least 1, got "
                f"tail={self.tail}, alpha={self.alpha}"
            )
        self._state: dict[str, Tensor] = {}

    def fit(self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Means and tails of the correctly classified images of the ID training set.

        Raises:
            ProgipError: a logit is not finite, or a class has too few correctly classified images.
        """
        self.load_state(fitted(f"ood_method '{self.name}'", network, batches, self.tail))

    def state(self) -> dict[str, Tensor]:
        if not self._state:
            raise ProgipError(f"ood_method '{self.name}': call fit before using it")
        return self._state

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._state = {
            name: values.clone(memory_format=torch.contiguous_format)
            for name, values in state.items()
        }

    def logit_score(self, logits: Tensor) -> Tensor:
        return -unknown_probability(logits, self.state(), self.alpha)


def fitted(
    owner: str, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], tail: int
) -> dict[str, Tensor]:
    """Means (classes, classes), and of each tail its least distance, shape and scale (classes,).

    Raises:
        ProgipError: as ``OpenMax.fit``.
    """
    means, tails = [], []
    for klass, (mean, every) in enumerate(of_classes(owner, network, batches)):
        distances = every[-tail:]
        if len(distances) < 2 or distances[0] == distances[-1]:
            raise ProgipError(
                f"{owner}: class {klass} has {len(every)} correctly classified training images, "
                "too few or too alike to fit their distances; train the network, give more "
                "training images, or do without it"
            )
        means.append(mean)
        tails.append((distances[0], *_weibull(distances - distances[0] + SHIFT)))
    least, shape, scale = np.array(tails).T
    state = {"means": np.stack(means), "least": least, "shape": shape, "scale": scale}
    return {name: torch.from_numpy(values) for name, values in state.items()}


def unknown_probability(logits: Tensor, state: Mapping[str, Tensor], alpha: int) -> Tensor:
    """The probability (B,) of the unknown class of float64 logits (B, classes).

    Args:
        state: of ``fitted``.
    """
    fit = {name: values.to(logits.device) for name, values in state.items()}
    distance = (logits.unsqueeze(1) - fit["means"]).square().sum(2).sqrt()
    moved = (distance - fit["least"] + SHIFT).clamp(min=0) / fit["scale"]
    outside = -torch.expm1(-(moved ** fit["shape"]))
    alpha = min(alpha, logits.shape[1])
    order = logits.sort(dim=1, descending=True, stable=True).indices
    ranks = torch.arange(alpha, 0, -1, device=logits.device).double() / alpha
    trust = torch.zeros_like(logits).scatter(1, order[:, :alpha], ranks.expand(len(logits), -1))
    lost = logits * outside * trust
    revised = torch.cat([lost.sum(1, keepdim=True), logits - lost], 1)
    return torch.softmax(revised, 1)[:, 0]


def _weibull(tail: np.ndarray) -> tuple[float, float]:
    """Shape and scale by maximum likelihood.

    A tail moved far from zero is nearly Gumbel; the moments of that begin the search, which from
    scipy's own beginning does not arrive.
    """
    width = float(tail.std()) * np.sqrt(6) / np.pi
    mean = float(tail.mean())
    with np.errstate(over="ignore"):  # of shapes that the search tries and leaves
        shape, _, scale = weibull_min.fit(tail, mean / width, floc=0, scale=mean)
    return float(shape), float(scale)

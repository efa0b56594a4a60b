"""Students of a trained dynamic network, ready to be used: cut out, and calibrated."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from progip.attacks.base import Attack, PixelNetwork
from progip.attacks.measuring import Robustness, robustness
from progip.datasets.base import Images
from progip.models.dynamic.network import DynamicNetwork
from progip.models.dynamic.space import Architecture
from progip.models.dynamic.student import calibrated
from progip.models.labelled_images import normalised


class Cutter:
    """Cuts students out of a network.

    Args:
        network: the trained one.
        images: for training; the first ``calibration`` of them estimate a student's statistics.
        mean, std: of the normalisation.
        batch_size: of these estimates, and of attacks.
        device: where students are, and are measured.
    """

    def __init__(
        self,
        network: DynamicNetwork,
        images: Images,
        mean: list[float],
        std: list[float],
        *,
        calibration: int,
        batch_size: int = 64,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network = network.to(device).eval()
        self._images = images.take(np.arange(len(images))[:calibration])
        self.mean, self.std = mean, std
        self._batch_size, self._device = batch_size, device

    def cut(self, architecture: Architecture) -> nn.Module:
        """The static network of an architecture, calibrated, in evaluation mode."""
        return calibrated(self.network.student(architecture), self._batches())

    def measured(
        self, student: nn.Module, images: Images, attack: Attack, seed: int = 0
    ) -> Robustness:
        """Accuracy of a student without and under an attack."""
        pixels = torch.from_numpy(images.pixels).float().div_(255).to(self._device)
        labels = torch.from_numpy(images.labels).to(self._device)
        network = PixelNetwork(student, self.mean, self.std).to(self._device).eval()
        return robustness(network, pixels, labels, attack, batch_size=250, seed=seed)

    def _batches(self) -> Iterator[Tensor]:
        for part in torch.from_numpy(self._images.pixels).split(self._batch_size):
            if len(part) > 1 or len(self._images) == 1:
                yield normalised(part, self.mean, self.std).to(self._device)

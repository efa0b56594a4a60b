"""Training batches: of images, changed as a recipe says, or of features that were computed once."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from progip.models.augmentation import Augmentation
from progip.models.features import input_of
from progip.models.image_sizes import resized
from progip.models.labelled_images import LabelledImages, cropped, normalised
from progip.models.recipe import Recipe

Normalisation = tuple[list[float], list[float]]  # mean, std


class Batches(Protocol):
    """What a network is trained on."""

    def __len__(self) -> int: ...

    def take(self, chosen: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What the network is given of the chosen examples, and labels or shares of classes.

        Draws from the global generator of torch.

        Args:
            size: height and width of images.
        """


class PixelBatches:
    """Batches of images: crops, flips and what else the recipe says, normalised, on the device."""

    def __init__(
        self,
        recipe: Recipe,
        images: LabelledImages,
        normalisation: Normalisation,
        classes: int,
        device: torch.device,
    ) -> None:
        self._recipe, self._images = recipe, images
        self._normalisation, self._device = normalisation, device
        self._changes = Augmentation(recipe, classes)

    def __len__(self) -> int:
        return len(self._images.pixels)

    def take(self, chosen: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        recipe, images = self._recipe, self._images
        pixels = torch.from_numpy(images.pixels[chosen.numpy()])
        labels = torch.from_numpy(images.labels[chosen.numpy()]).to(self._device)
        if recipe.crop_padding:
            pixels = cropped(pixels, recipe.crop_padding)
        if recipe.flip:
            mirrored = (torch.rand(len(pixels)) < 0.5).view(-1, 1, 1, 1)
            pixels = torch.where(mirrored, pixels.flip(3), pixels)
        batch = normalised(self._changes.pixels(pixels), *self._normalisation)
        batch = resized(self._changes.normalised(batch).to(self._device), size)
        batch, targets = self._changes.mixed(batch, labels)
        memory = torch.channels_last if recipe.channels_last else torch.preserve_format
        return batch.to(memory_format=memory), targets


class FeatureBatches:
    """Batches of the features that a frozen network gives its head."""

    @torch.no_grad()
    def __init__(
        self,
        network: nn.Module,
        head: nn.Module,
        images: LabelledImages,
        normalisation: Normalisation,
        device: torch.device,
        batch_size: int = 64,
    ) -> None:
        network.eval()
        found = []
        for start in range(0, len(images.pixels), batch_size):
            pixels = torch.from_numpy(images.pixels[start : start + batch_size])
            with input_of(head) as features:
                network(normalised(pixels, *normalisation).to(device))
            found.append(features[0])
        self._features = torch.cat(found)
        self._labels = torch.from_numpy(np.asarray(images.labels)).to(device)

    def __len__(self) -> int:
        return len(self._features)

    def take(self, chosen: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        chosen = chosen.to(self._features.device)
        return self._features[chosen], self._labels[chosen]

    @torch.no_grad()
    def accuracy(self, head: nn.Module) -> float:
        """Share of these features, in [0, 1], whose class the head gives."""
        head.eval()
        return float((head(self._features).argmax(1) == self._labels).float().mean())

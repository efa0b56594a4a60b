"""Changes of training images by torchvision.transforms.v2, each drawn from torch's generator."""

from typing import Any

import torch
from torch import Tensor

from progip.compat import enable_torchvision
from progip.models.recipe import Recipe


class Augmentation:
    """What a recipe does to images beside crops and flips; nothing is drawn for what is off.

    As torchvision's reference script: ``TrivialAugmentWide`` before the normalisation,
    ``RandomErasing`` after it, each image by itself; then one of ``MixUp`` and ``CutMix`` a batch.
    """

    def __init__(self, recipe: Recipe, classes: int) -> None:
        self._trivial: Any = None
        self._erase: Any = None
        self._mix: Any = None
        if not (recipe.trivial_augment or recipe.erase or recipe.mixup or recipe.cutmix):
            return
        v2 = _transforms()
        if recipe.trivial_augment:
            self._trivial = v2.TrivialAugmentWide()
        if recipe.erase:
            self._erase = v2.RandomErasing(recipe.erase)
        alphas = ((v2.MixUp, recipe.mixup), (v2.CutMix, recipe.cutmix))
        mixes = [make(alpha=alpha, num_classes=classes) for make, alpha in alphas if alpha]
        if mixes:
            self._mix = mixes[0] if len(mixes) == 1 else v2.RandomChoice(mixes)

    def pixels(self, pixels: Tensor) -> Tensor:
        """uint8 (n, c, h, w), each image changed."""
        return pixels if self._trivial is None else _each(self._trivial, pixels)

    def normalised(self, images: Tensor) -> Tensor:
        """float32 (n, c, h, w), rectangles erased."""
        return images if self._erase is None else _each(self._erase, images)

    def mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images, and labels (n,) or the shares of classes (n, classes) that take their place."""
        if self._mix is None:
            return images, labels
        mixed: tuple[Tensor, Tensor] = self._mix(images, labels)
        return mixed


def _each(change: Any, images: Tensor) -> Tensor:
    return torch.stack([change(image) for image in images])


def _transforms() -> Any:
    enable_torchvision()
    from torchvision.transforms import v2

    return v2

"""I-ODIN: ODIN that moves one element of the image alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from progip.ood_methods.base import InputPerturbation
from progip.ood_methods.odin import ODIN


@dataclass(kw_only=True)
class IODIN(ODIN):
    """ODIN whose perturbation keeps to the most important element of each image.

    Loss, step and score are those of ODIN; x~_j = x_j for every element j (of a pixel, one channel)
    but j* = argmax_j |g_j| of the gradient g, the first of several equal ones. A NaN counts as
    larger than any number: the first NaN of a gradient is j*, and moves as ``sign`` says of NaN.

    Source: ``iodin`` of OpenOOD.
    """

    sentence: ClassVar[str] = InputPerturbation.sentence + (
        " I-ODIN perturbs the one element with the largest gradient; its score is the largest "
        "softmax probability at a high temperature [I-ODIN, ODIN]."
    )
    references: ClassVar[Mapping[str, str]] = {
        **ODIN.references,
        "I-ODIN": "OpenOOD, postprocessor iodin. https://github.com/Jingkang50/OpenOOD",
    }

    def perturb(self, images: Tensor, gradient: Tensor) -> Tensor:
        size = gradient.abs().flatten(1)
        most = torch.zeros_like(size, dtype=torch.bool).scatter(1, size.argmax(1, True), True)
        return torch.where(most.view(images.shape), super().perturb(images, gradient), images)

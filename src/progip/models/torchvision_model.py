"""Any classification model of torchvision, by its name there."""

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import nn

from progip.compat import enable_torchvision
from progip.errors import ProgipError
from progip.models.named import NamedArchitecture

PUBLISHED_CLASSES = 1000
#: these two have auxiliary classifiers for training, which are not built here
_AUXILIARY = ("googlenet", "inception_v3")


@dataclass(kw_only=True)
class TorchvisionModel(NamedArchitecture):
    """A classification architecture of torchvision (https://docs.pytorch.org/vision).

    Attributes:
        arch: its name in torchvision, ``resnet18`` or ``vit_b_16`` say.
        weights: also ``published``: torchvision's best ImageNet weights, through its own download
            and hash check, into the cache of torch. They expect ImageNet's normalisation and 1000
            classes; GoogLeNet and Inception-v3 rescale the input themselves, as they were trained.

    Raises:
        ProgipError: where the architecture is unknown, or ``channels`` is not 3.
    """

    library: ClassVar[str] = "torchvision"
    training_only: ClassVar[tuple[str, ...]] = ("aux1.", "aux2.", "AuxLogits.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels != 3:
            raise ProgipError(
                f"torchvision's models take 3 channels, not {self.channels}; "
                "choose another model for this dataset"
            )

    @classmethod
    def known(cls) -> list[str]:
        """The names ``arch`` may have."""
        models = _torchvision_models()
        return models.list_models(module=models)

    def architecture(self) -> nn.Module:
        """Without auxiliary classifiers, so the output is always logits."""
        options: dict[str, Any] = {"num_classes": self.classes}
        if self.arch in _AUXILIARY:
            published = self.weights == "published"
            options |= {"aux_logits": False, "init_weights": True, "transform_input": published}
        return _torchvision_models().get_model(self.arch, **options)

    def published_weights(self) -> dict[str, torch.Tensor]:
        """torchvision's best weights of this architecture, downloaded into the cache of torch.

        Raises:
            ProgipError: where they cannot be downloaded, are damaged, or have other classes.
        """
        if self.classes != PUBLISHED_CLASSES:
            raise ProgipError(
                f"the published weights of {self.arch} know {PUBLISHED_CLASSES} classes, the "
                f"dataset has {self.classes}; give model.weights=PATH or train the network"
            )
        entry = _torchvision_models().get_model_weights(self.arch).DEFAULT
        try:
            return entry.get_state_dict(progress=True, check_hash=True, map_location="cpu")
        except (URLError, OSError, RuntimeError) as problem:
            raise ProgipError(
                f"cannot fetch the published weights of {self.arch}: {problem}. Download "
                f"{entry.url} elsewhere and give model.weights=PATH"
            ) from problem


def _torchvision_models() -> Any:
    enable_torchvision()
    import torchvision.models

    return torchvision.models

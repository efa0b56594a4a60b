"""Any classification model of torchvision, by its name there."""

import difflib
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torch import nn

from progip.compat import enable_torchvision
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.rewrite import with_own_modules

PUBLISHED_CLASSES = 1000
#: these two have auxiliary classifiers for training, which are not built here
_AUXILIARY = ("googlenet", "inception_v3")


@dataclass(kw_only=True)
class TorchvisionModel(Model):
    """A classification architecture of torchvision (https://docs.pytorch.org/vision).

    Attributes:
        arch: its name in torchvision, ``resnet18`` or ``vit_b_16`` say.
        input_size: enlarge the images (bilinear) to this many pixels a side before the network, as
            a module called ``input_resize``; without it images enter as the dataset gives them.
        weights: also ``published``: torchvision's best ImageNet weights, through its own download
            and hash check, into the cache of torch. They expect ImageNet's normalisation and 1000
            classes; GoogLeNet and Inception-v3 rescale the input themselves, as they were trained.

    Raises:
        ProgipError: where the architecture is unknown, or ``channels`` is not 3.
    """

    training_only: ClassVar[tuple[str, ...]] = ("aux1.", "aux2.", "AuxLogits.")

    arch: str = "resnet18"
    input_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = architectures()
        if self.arch not in known:
            close = difflib.get_close_matches(self.arch, known, n=5, cutoff=0.5)
            hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise ProgipError(f"torchvision has no classification model '{self.arch}'; {hint}")
        if self.channels != 3:
            raise ProgipError(
                f"torchvision's models take 3 channels, not {self.channels}; "
                "choose another model for this dataset"
            )
        if self.input_size is not None and self.input_size < 1:
            raise ProgipError(f"model.input_size must be at least 1, not {self.input_size}")

    def network(self) -> nn.Module:
        """Input (n, 3, h, w); without auxiliary classifiers, so the output is always logits."""
        options: dict[str, Any] = {"num_classes": self.classes}
        if self.arch in _AUXILIARY:
            published = self.weights == "published"
            options |= {"aux_logits": False, "init_weights": True, "transform_input": published}
        network = _torchvision_models().get_model(self.arch, **options)
        if self.input_size is not None:
            resize = _resize(self.input_size)
            network.register_forward_pre_hook(lambda module, args: (resize(args[0]),))
        return network

    def prepared(self, network: nn.Module) -> nn.Module:
        # Tracing does not see the hook that network() resizes with; here it becomes a module.
        first = {} if self.input_size is None else {"input_resize": _resize(self.input_size)}
        return with_own_modules(network, first)

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


def _resize(size: int) -> nn.Module:
    return nn.Upsample(size=(size, size), mode="bilinear", align_corners=False)


def architectures() -> list[str]:
    """The names ``arch`` may have."""
    models = _torchvision_models()
    return models.list_models(module=models)


def _torchvision_models() -> Any:
    enable_torchvision()
    import torchvision.models

    return torchvision.models

"""Any classification model of timm, by its name there."""

import copy
import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from progip.compat import enable_torchvision
from progip.errors import ProgipError
from progip.models.named import NamedArchitecture

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class TimmModel(NamedArchitecture):
    """An architecture of timm (https://github.com/huggingface/pytorch-image-models).

    Attributes:
        arch: its name there without a tag, ``resnetv2_50x1_bit`` say: a tag names weights, and
            weights come from ``weights`` alone. Nothing is downloaded by timm.

    Raises:
        ProgipError: where timm is not installed or has no such architecture.
    """

    library: ClassVar[str] = "timm"

    @classmethod
    def known(cls) -> list[str]:
        """The names ``arch`` may have."""
        names: list[str] = _timm().list_models()
        return names

    def architecture(self) -> nn.Module:
        """Input (n, channels, h, w)."""
        try:
            network: nn.Module = _timm().create_model(
                self.arch, pretrained=False, num_classes=self.classes, in_chans=self.channels
            )
        except (TypeError, ValueError, RuntimeError, AssertionError) as problem:
            raise ProgipError(
                f"timm cannot make '{self.arch}' for {self.classes} classes and {self.channels} "
                f"channels: {str(problem).splitlines()[0]}"
            ) from problem
        return network

    def prepared(self, network: nn.Module) -> nn.Module:
        """The network with modules in place of functions, or as it is where that fails.

        Not all of timm's code can be traced by torch.fx, and what can is held against the network
        itself on an image of the size it was made for.
        """
        size = self.input_size or _native_size(network)
        parameter = next(network.parameters())
        image = torch.randn(
            1, self.channels, size, size, generator=torch.Generator().manual_seed(0)
        ).to(parameter)
        try:
            result = super().prepared(copy.deepcopy(network))  # tracing leaves proxies in caches
            with torch.no_grad():
                if torch.equal(result(image), network(image)):
                    return result
            reason = "the traced network computes other values"
        except Exception as problem:  # foreign code may raise anything when it is traced
            reason = (str(problem).splitlines() or [type(problem).__name__])[0]
        log.warning(
            "model '%s': the code of timm's %s cannot be rewritten (%s); it runs as it is, and "
            "activations that are functions, not modules, are not range checked",
            self.name, self.arch, reason,
        )  # fmt: skip
        return network


def _native_size(network: nn.Module) -> int:
    config: dict[str, Any] = getattr(network, "default_cfg", None) or {}
    return int(config.get("input_size", (3, 224, 224))[-1])


def _timm() -> Any:
    enable_torchvision()
    try:
        import timm
    except ImportError as problem:
        raise ProgipError(
            'model=timm needs the package timm: pip install -e ".[timm]" in the project, or '
            f"pip install timm ({problem})"
        ) from problem
    return timm

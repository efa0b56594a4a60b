"""Architectures of another library, by their names there."""

import difflib
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.rewrite import with_own_modules


@dataclass(kw_only=True)
class NamedArchitecture(Model):
    """A classification architecture of another library.

    Attributes:
        arch: its name in the library, ``resnet18`` say.
        input_size: enlarge the images (bilinear) to this many pixels a side before the network, as
            a module called ``input_resize``; without it images enter as the dataset gives them.

    Raises:
        ProgipError: where the library has no such architecture.
    """

    library: ClassVar[str]

    arch: str = "resnet18"
    input_size: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.known()
        if self.arch not in known:
            close = difflib.get_close_matches(self.arch, known, n=5, cutoff=0.5)
            hint = f"there are {', '.join(known[:100])}{', ...' * (len(known) > 100)}"
            hint = f"did you mean {', '.join(close)}?" if close else hint
            raise ProgipError(f"{self.library} has no classification model '{self.arch}'; {hint}")
        if self.input_size is not None and self.input_size < 1:
            raise ProgipError(f"model.input_size must be at least 1, not {self.input_size}")

    @classmethod
    @abstractmethod
    def known(cls) -> list[str]:
        """The names ``arch`` may have."""

    @abstractmethod
    def architecture(self) -> nn.Module:
        """The freshly initialised network of the library, from images as it wants them."""

    def network(self) -> nn.Module:
        """Input (n, channels, h, w)."""
        network = self.architecture()
        if self.input_size is not None:
            resize = _resize(self.input_size)
            network.register_forward_pre_hook(lambda module, args: (resize(args[0]),))
        return network

    def prepared(self, network: nn.Module) -> nn.Module:
        # Tracing does not see the hook that network() resizes with; here it becomes a module.
        first = {} if self.input_size is None else {"input_resize": _resize(self.input_size)}
        return with_own_modules(network, first, self.operations)


def _resize(size: int) -> nn.Module:
    return nn.Upsample(size=(size, size), mode="bilinear", align_corners=False)

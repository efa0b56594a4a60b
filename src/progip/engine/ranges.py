"""Clean value ranges of activations: where they are checked, and how they are profiled."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.models.rewrite import GlobalAvgPool, Reshape

RangeSite = tuple[str, int]  # layer name, which call of it in a forward pass

ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
    nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus,
)  # fmt: skip
#: what may follow an activation without creating larger values, and is checked with its range.
FOLLOWERS = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Flatten, nn.Unflatten,
    GlobalAvgPool, Reshape,
)  # fmt: skip
#: does nothing in evaluation mode: neither checked nor in the way of what follows.
PASS_THROUGH = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


@dataclass
class RangeTable:
    """Smallest and largest clean value of every range-checked layer, over ID training images.

    A pool or reshape that directly follows an activation shares the activation's range; the
    placement rule of Ranger (Chen, Li, Pattabiraman, DSN 2021) in its detection-only form.

    Attributes:
        source: for each checked (layer, call), the activation whose range it uses.
        low, high: for each activation (layer, call).
    """

    source: dict[RangeSite, RangeSite] = field(default_factory=dict)
    low: dict[RangeSite, float] = field(default_factory=dict)
    high: dict[RangeSite, float] = field(default_factory=dict)

    @property
    def sites(self) -> list[RangeSite]:
        return list(self.source)

    @property
    def layers(self) -> set[str]:
        return {layer for layer, _ in self.source}

    def excess(self, site: RangeSite, output: Tensor, batch: int) -> Tensor:
        """How far each sample's values leave the range, shape (batch,), in widths of the range.

        <= 0 means inside; NaN where a value is NaN.
        """
        source = self.source[site]
        low, high = self.low[source], self.high[source]
        width = max(high - low, torch.finfo(torch.float32).tiny)
        flat = output.detach().reshape(batch, -1)
        return torch.maximum((flat.amax(1) - high) / width, (low - flat.amin(1)) / width)

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "layer": s[0],
                "call": s[1],
                "source_layer": a[0],
                "source_call": a[1],
                "low": self.low[a],
                "high": self.high[a],
            }
            for s, a in self.source.items()
        ]

    @classmethod
    def from_json(cls, rows: list[dict[str, Any]]) -> "RangeTable":
        table = cls()
        for row in rows:
            source = (row["source_layer"], row["source_call"])
            table.source[(row["layer"], row["call"])] = source
            table.low[source], table.high[source] = row["low"], row["high"]
        return table


def find_range_sites(network: nn.Module, images: Tensor) -> dict[RangeSite, RangeSite]:
    """The checked (layer, call) of one forward pass, each with the activation it belongs to.

    Found by watching which tensor objects modules hand to one another, so it holds for any
    network whose activations are modules. Functional activations are not seen.
    """
    counts: dict[str, int] = {}
    sites: dict[RangeSite, RangeSite] = {}
    produced: dict[int, tuple[Tensor, RangeSite]] = {}  # the tensor is kept so its id stays taken

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any, name: str) -> None:
        if not isinstance(output, Tensor) or output.shape[0] % len(images):
            return
        given = produced.get(id(args[0])) if args else None
        if isinstance(module, PASS_THROUGH) and given is not None:
            produced[id(output)] = (output, given[1])
            return
        if isinstance(module, (*ACTIVATIONS, *FOLLOWERS)):
            site = (name, counts.get(name, 0))
            counts[name] = site[1] + 1
            if isinstance(module, ACTIVATIONS):
                sites[site] = site
            elif given is not None:
                sites[site] = given[1]
            if site in sites:
                produced[id(output)] = (output, sites[site])

    with ExitStack() as stack, torch.no_grad():
        for name, module in network.named_modules():
            handle = module.register_forward_hook(lambda m, a, o, name=name: hook(m, a, o, name))
            stack.callback(handle.remove)
        network(images)
    return sites


@contextmanager
def profiling(network: nn.Module, sites: dict[RangeSite, RangeSite]) -> Iterator[RangeTable]:
    """Profile every forward pass made inside: smallest and largest value of each activation.

    The table is filled when the block ends.

    Raises:
        ProgipError: an activation is not finite on a clean image.
    """
    table = RangeTable(source=dict(sites))
    activations = set(sites.values())
    low: dict[RangeSite, Tensor] = {}
    high: dict[RangeSite, Tensor] = {}

    def seen(site: RangeSite, output: Tensor) -> None:
        if site in activations:
            least, most = output.detach().aminmax()
            low[site] = torch.minimum(low.get(site, least), least)
            high[site] = torch.maximum(high.get(site, most), most)

    with watch_calls(network, {layer for layer, _ in activations}, seen):
        yield table
    for site in activations:
        table.low[site], table.high[site] = low[site].item(), high[site].item()
        if not (float("-inf") < table.low[site] and table.high[site] < float("inf")):
            raise ProgipError(
                f"layer '{site[0]}': its clean outputs are not finite on the training images; "
                "the weights or the normalisation are wrong"
            )


@contextmanager
def watch_calls(
    network: nn.Module, layers: set[str], seen: Callable[[RangeSite, Tensor], None]
) -> Iterator[None]:
    """Call ``seen((layer, call), output)`` after every call of the named modules.

    Calls are counted from the start of each forward pass of the network.
    """
    counts: dict[str, int] = {}
    handles = [network.register_forward_pre_hook(lambda *_: counts.clear())]
    for name, module in network.named_modules():
        if name in layers:

            def hook(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                call = counts.get(name, 0)
                counts[name] = call + 1
                seen((name, call), output)

            handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

"""Parameters as what faults hit: where they are, and how a fault map is written and taken back."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from progip.fault_models.base import Hits, Site
from progip.fault_models.layers import kinds_of
from progip.models.loading import weights_fingerprint
from progip.number_formats.codes import registers
from progip.number_formats.emulated import held_in
from progip.number_formats.fp32 import FP32


def parameter_sites(network: nn.Module, macs: Mapping[str, int]) -> list[Site]:
    """Every float32 parameter, in the order of ``named_modules``; one that is shared, once.

    Args:
        macs: multiply-accumulates of each layer for one image.
    """
    found, seen = [], set()
    for name, module in network.named_modules():
        kinds = kinds_of(module)
        for position, (own, parameter) in enumerate(module.named_parameters(recurse=False)):
            if id(parameter) in seen or parameter.dtype != torch.float32 or not parameter.numel():
                continue
            seen.add(id(parameter))
            found.append(
                Site(
                    name,
                    position,
                    kinds[0],
                    tuple(parameter.shape),
                    parameter.numel(),
                    macs.get(name, 0),
                    kinds,
                    format=held_in(module, own, FP32),
                    parameter=own,
                )
            )
    return found


@dataclass(frozen=True)
class Written:
    """A fault map in memory: each hit value before and after, in the order of its hits."""

    before: np.ndarray
    after: np.ndarray


class Memory:
    """The parameters of a network that hold faults for a while.

    Args:
        sites: parameters (``parameter_sites``).
    """

    def __init__(self, network: nn.Module, sites: list[Site]) -> None:
        self._network, self._sites = network, sites
        modules = dict(network.named_modules())
        self.parameters: list[Tensor] = [
            getattr(modules[site.layer], site.parameter).detach() for site in sites
        ]
        self._fingerprint = weights_fingerprint(network)

    def values(self, site: int, hits: Hits, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Places in memory, values without and with the faults of some hits of one parameter."""
        parameter, about = self.parameters[site], self._sites[site]
        neurons = hits.neuron[chosen]
        where = np.unravel_index(neurons, about.shape) if about.shape else ()
        places = torch.from_numpy(np.dot(parameter.stride(), where)).to(parameter.device)
        before = flat(parameter)[places]
        metadata = registers(about.format, parameter[None], np.zeros_like(neurons), neurons)
        codes = about.format.encode(before, metadata)
        if hits.clear is not None:
            codes = codes & ~_words(hits.clear[chosen], codes)
        codes = codes ^ _words(hits.mask[chosen], codes)
        return places, before, about.format.decode(codes, metadata)

    @contextmanager
    def faulty(self, hits: Hits) -> Iterator[Written]:
        """The hits of one map in memory; after it every parameter is what it was, bit for bit.

        Raises:
            RuntimeError: a parameter is not what it was.
        """
        before, after = (np.zeros(len(hits.site), dtype=np.float32) for _ in range(2))
        written: list[tuple[Tensor, Tensor]] = []
        kept: list[tuple[int, Tensor]] = []
        try:
            for site in np.unique(hits.site).tolist():
                chosen = np.flatnonzero(hits.site == site)
                places, old, new = self.values(site, hits, chosen)
                kept.append((site, self.parameters[site].clone()))
                memory = flat(self.parameters[site])
                memory[places] = new
                written.append((memory, places))
                before[chosen], after[chosen] = old.cpu().numpy(), new.cpu().numpy()
            yield Written(before, after)
        finally:
            for (site, whole), (memory, places) in zip(kept, written, strict=False):
                memory[places] = flat(whole)[places]
                if not torch.equal(_bits(self.parameters[site]), _bits(whole)):
                    raise RuntimeError(
                        f"parameter '{self._sites[site].parameter}' of layer "
                        f"'{self._sites[site].layer}' is not what it was before its faults"
                    )

    def check(self) -> None:
        """Raise RuntimeError where a weight of the network is not what it was at first."""
        if weights_fingerprint(self._network) != self._fingerprint:
            raise RuntimeError("the network's weights are not what they were before the faults")


def flat(tensor: Tensor) -> Tensor:
    """The memory of a tensor, whatever its order of dimensions."""
    span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((span,), (1,))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32)


def _words(words: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(words.view(np.int32)).to(like.device)

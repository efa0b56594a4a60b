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


@dataclass(frozen=True)
class Change:
    """What some hits of one parameter do to its memory.

    Attributes:
        places: (n,) int64, in ``flat`` memory.
        values: (n,) that are there then.
        before, after: (hits,) float32, what each hit value, or register of values, stands for
            without and with its fault.
    """

    places: Tensor
    values: Tensor
    before: Tensor
    after: Tensor


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

    def change(self, site: int, hits: Hits, chosen: np.ndarray) -> Change:
        """What some hits do to one parameter; nothing is written.

        Args:
            site: position among the sites.
            chosen: positions of its hits.
        """
        about, parameter = self._sites[site], self.parameters[site]
        number_format, neurons = about.format, hits.neuron[chosen]
        if about.of_metadata:
            return self._change_of_registers(site, hits, chosen)
        places = self._places(site, neurons)
        before = flat(parameter)[places]
        metadata = registers(number_format, parameter[None], np.zeros_like(neurons), neurons)
        codes = _hit(number_format.encode(before, metadata), hits, chosen)
        after = number_format.decode(codes, metadata)
        return Change(places, after, before, after)

    def _change_of_registers(self, site: int, hits: Hits, chosen: np.ndarray) -> Change:
        """Every value of the blocks whose register is hit, decoded with what it then holds."""
        number_format, parameter = self._sites[site].format, self.parameters[site]
        found = number_format.metadata(parameter[None])
        assert found is not None
        own = found[0]
        hit = torch.from_numpy(hits.neuron[chosen]).to(own.device)
        faulty = own.clone()
        faulty[hit] = _hit(own[hit], hits, chosen)
        block = np.arange(parameter.numel()) * len(own) // parameter.numel()
        neurons = np.flatnonzero(np.isin(block, hits.neuron[chosen]))
        places, of = self._places(site, neurons), torch.from_numpy(block[neurons]).to(own.device)
        codes = number_format.encode(flat(parameter)[places], own[of])
        before, after = (number_format.metadata_values(r[hit]) for r in (own, faulty))
        return Change(places, number_format.decode(codes, faulty[of]), before, after)

    def _places(self, site: int, neurons: np.ndarray) -> Tensor:
        parameter = self.parameters[site]
        where = np.unravel_index(neurons, tuple(parameter.shape) or (1,))
        found = np.dot(parameter.stride() or (1,), where)
        return torch.from_numpy(found).to(parameter.device)

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
                change = self.change(site, hits, chosen)
                kept.append((site, self.parameters[site].clone()))
                memory = flat(self.parameters[site])
                memory[change.places] = change.values
                written.append((memory, change.places))
                before[chosen] = change.before.cpu().numpy()
                after[chosen] = change.after.cpu().numpy()
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


def _hit(codes: Tensor, hits: Hits, chosen: np.ndarray) -> Tensor:
    """Codes with the bits that hits clear and flip."""
    if hits.clear is not None:
        codes = codes & ~_words(hits.clear[chosen], codes)
    return codes ^ _words(hits.mask[chosen], codes)


def _words(words: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(words.view(np.int32)).to(like.device)

"""The same planned faults under other injectors, each used as well as its interface allows.

Neither is a dependency of ProGIP; they are installed beside it, for the benchmark alone:

    pip install --no-deps --target PEERS pytorchfi==0.6.0 mrfi==2.1.0
    PYTHONPATH=PEERS python benchmarks/classification.py ...

A peer takes batches with another fault in every row and returns the logits of each batch. What is
known of the faults ahead (coordinates, bits) is prepared outside the time that is measured.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip.fault_models.base import Site

Run = Callable[[], list[Tensor]]


class Batch(NamedTuple):
    """Images, and for each row the layer (in order of execution), neuron and bit to flip."""

    images: Tensor
    layer: list[int]
    where: list[tuple[int | None, ...]]  # three coordinates, None where the layer has fewer
    neuron: list[int]
    bit: list[int]


def batches(plan: pa.Table, sites: list[Site], images: Tensor, size: int) -> list[Batch]:
    """A plan as full batches; peers have no notion of a repeated call of a module."""
    number = {site.key: i for i, site in enumerate(sites)}
    result = []
    for start in range(0, len(plan) - size + 1, size):
        part = plan.slice(start, size)
        keys = zip(part["layer"].to_pylist(), part["call"].to_pylist(), strict=True)
        layer, neuron = [number[key] for key in keys], part["neuron"].to_pylist()
        where = [
            (*(int(i) for i in np.unravel_index(n, sites[k].shape)), None, None)[:3]
            for k, n in zip(layer, neuron, strict=True)
        ]
        chosen = images[torch.from_numpy(part["sample_index"].to_numpy().astype(np.int64))]
        result.append(Batch(chosen, layer, where, neuron, part["bit"].to_pylist()))
    return result


def pytorchfi_planned(network: nn.Module, work: list[Batch], *, redeclare: bool) -> Run:
    """IEEE flips by the documented route of a custom function in a subclass.

    The expert form declares once and gives the corrupted model new coordinates for every batch;
    the other one declares, and so copies the network, for every batch.
    """
    from pytorchfi.core import fault_injection

    class Flip(fault_injection):  # type: ignore[misc]
        masks: Tensor

        def hook(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
            rows = [i for i, k in enumerate(self.corrupt_layer) if k == self.current_layer]
            if rows:
                axes = (self.corrupt_batch, self.corrupt_dim1, self.corrupt_dim2, self.corrupt_dim3)
                index = tuple(
                    torch.tensor([axis[i] for i in rows]) for axis in axes[: output.dim()]
                )
                bits = output.view(torch.int32)
                bits[index] = bits[index] ^ self.masks[rows]
            self.updateLayer()

    shape = list(work[0].images.shape[1:])
    size = len(work[0].images)
    pfi = Flip(network, size, input_shape=shape, layer_types=[nn.Conv2d, nn.Linear], use_cuda=False)
    masks = [_masks(batch) for batch in work]

    def declare(batch: Batch) -> nn.Module:
        dims = [list(axis) for axis in zip(*batch.where, strict=True)]
        named = dict(zip(("dim1", "dim2", "dim3"), dims, strict=True))
        rows = list(range(size))
        declared: nn.Module = pfi.declare_neuron_fi(
            batch=rows, layer_num=batch.layer, function=pfi.hook, **named
        )
        return declared

    reused = declare(work[0])
    axes = [[list(axis) for axis in zip(*batch.where, strict=True)] for batch in work]

    def run() -> list[Tensor]:
        result = []
        for batch, mask, dims in zip(work, masks, axes, strict=True):
            model = declare(batch) if redeclare else reused
            pfi.corrupt_layer = batch.layer
            pfi.corrupt_dim1, pfi.corrupt_dim2, pfi.corrupt_dim3 = dims
            pfi.masks = mask
            with torch.no_grad():
                result.append(model(batch.images))
            pfi.reset_current_layer()
        return result

    return run


def pytorchfi_shipped(network: nn.Module, work: list[Batch]) -> Run:
    """Its own random 8-bit fixed-point flip in every row of convolutions: other faults than ours.

    Ranges are 1 % wider than profiled, since its flip fails at the profiled maximum.
    """
    from pytorchfi.neuron_error_models import (
        random_neuron_single_bit_inj_batched,
        single_bit_flip_func,
    )

    highest: list[float] = []
    hooks = [
        module.register_forward_hook(lambda m, i, o: highest.append(1.01 * o.abs().max().item()))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.cat([batch.images for batch in work]))
    for hook in hooks:
        hook.remove()
    images = work[0].images
    shape = list(images.shape[1:])
    pfi = single_bit_flip_func(network, len(images), input_shape=shape, use_cuda=False)

    def run() -> list[Tensor]:
        result = []
        for batch in work:
            model = random_neuron_single_bit_inj_batched(pfi, highest)
            with torch.no_grad():
                result.append(model(batch.images))
        return result

    return run


def mrfi_planned(network: nn.Module, work: list[Batch], sites: list[Site]) -> Run:
    """IEEE flips at fixed positions, the positions and bits of every layer set for each batch."""
    from mrfi import MRFI, EasyConfig

    layers = [site.layer for site in sites]
    fault = {
        "type": "activation_out",
        "module_fullname": layers,
        "selector": {"method": "FixPositions", "positions": []},
        "error_mode": {"method": "FloatFixedBitFlip", "bit": [], "floattype": "float32"},
    }
    model = MRFI(copy.deepcopy(network), EasyConfig({"faultinject": [fault]}))
    modules = dict(model.model.named_modules())
    nodes = [modules[layer].FI_config["activation_out"][0] for layer in layers]
    plans = []
    for batch in work:
        by_layer: dict[int, tuple[list[int], list[int]]] = {}
        for row, (layer, neuron, bit) in enumerate(
            zip(batch.layer, batch.neuron, batch.bit, strict=True)
        ):
            positions, bits = by_layer.setdefault(layer, ([], []))
            positions.append(row * sites[layer].neurons + neuron)
            bits.append(bit)
        plans.append(by_layer)

    def run() -> list[Tensor]:
        result = []
        for batch, by_layer in zip(work, plans, strict=True):
            for layer, node in enumerate(nodes):
                node["enabled"] = layer in by_layer
                if layer in by_layer:
                    node["selector"]["args"]["positions"] = by_layer[layer][0]
                    node["error_mode"]["args"]["bit"] = by_layer[layer][1]
            result.append(model(batch.images))
        return result

    return run


def _masks(batch: Batch) -> Tensor:
    return torch.tensor([1 << bit for bit in batch.bit], dtype=torch.int64).to(torch.int32)

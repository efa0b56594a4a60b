"""Where a value goes unmixed: from the output of a layer to the places of correction."""

import math
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from progip.fault_models.base import Site
from progip.models.calls import Call, tensor_argument, watch_calls

MIXING = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Linear, nn.Bilinear,
)  # fmt: skip
PROBE = 1.0e4  # what is added to a value to see where it goes
ROWS = 8  # probes in one forward pass


class Path(NamedTuple):
    """Neuron k of a site arrives as element ``k + offset`` of the input and output of ``call``."""

    call: Call
    offset: int


def find_paths(
    network: nn.Module, sites: list[Site], calls: list[Call], image: Tensor
) -> list[list[Path]]:
    """For each site, the calls that its values reach element by element.

    A few values of every site are changed, one in each row, while all layers that mix values keep
    their clean outputs: where exactly one element of a call's input changes, it is that value.
    Calls whose output has another shape than their input are left out.

    Args:
        network: without corrections.
        sites: of forward passes.
        calls: places of correction; one that is itself a site has the path of offset 0.
        image: (1, channels, height, width).
    """
    batch = image.repeat(ROWS, *[1] * (image.dim() - 1))
    clean = _Forward(network, calls, batch)
    probes = [
        (number, neuron)
        for number, site in enumerate(sites)
        for neuron in sorted({0, site.neurons // 2, site.neurons - 1})
    ]
    offsets: list[dict[Call, set[int]]] = [{} for _ in sites]
    for start in range(0, len(probes), ROWS):
        part = probes[start : start + ROWS]
        changed: dict[Call, list[tuple[int, int]]] = {}
        for row, (number, neuron) in enumerate(part):
            changed.setdefault(sites[number].key, []).append((row, neuron))
        probed = _Forward(network, calls, batch, clean.mixed, changed)
        for call, tensor in probed.inputs.items():
            apart = (tensor != clean.inputs[call]).flatten(1)
            for row, (number, neuron) in enumerate(part):
                count = int(apart[row].sum())
                found = offsets[number].setdefault(call, set())
                if count == 1:
                    found.add(int(apart[row].nonzero()) - neuron)
                elif count > 1:
                    found.update((-1, -2))  # mixed after all
    return [
        [
            *(Path(call, 0) for call in calls if call == site.key),
            *(
                Path(call, min(o))
                for call, o in found.items()
                if len(o) == 1
                and call != site.key
                and _fits(site.shape, tuple(clean.inputs[call].shape[1:]), min(o))
            ),
        ]
        for site, found in zip(sites, offsets, strict=True)
    ]


def _fits(shape: tuple[int, ...], place: tuple[int, ...], offset: int) -> bool:
    """Whether a tensor of one shape can lie in another as a block of whole channels at an offset.

    A shortcut that skips every second pixel takes values over, too, but at no fixed offset.
    """
    channel = math.prod(shape[1:])
    last = (place[0] - shape[0]) * channel if place else -1
    return shape[1:] == place[1:] and offset % channel == 0 and 0 <= offset <= last


class _Forward:
    """One forward pass: what each mixing layer gave, and what each call of interest got."""

    def __init__(
        self,
        network: nn.Module,
        calls: list[Call],
        batch: Tensor,
        mixed: dict[Call, Tensor] | None = None,
        changed: dict[Call, list[tuple[int, int]]] | None = None,
    ) -> None:
        self.mixed: dict[Call, Tensor] = {}
        self.inputs: dict[Call, Tensor] = {}
        wanted, counts = set(calls), dict[str, int]()
        modules = dict(network.named_modules())

        def before(given: Tensor | None, name: str) -> None:
            call = (name, counts.get(name, 0))
            counts[name] = call[1] + 1
            if call in wanted and given is not None:
                self.inputs[call] = given.clone()  # activations may work in place

        def after(call: Call, _: Any, output: Any) -> Any:
            if call in wanted and self.inputs[call].shape != output.shape:
                del self.inputs[call]
            if not isinstance(output, Tensor):
                return None
            if isinstance(modules[call[0]], MIXING):
                self.mixed[call] = output if mixed is None else mixed[call]
                output = self.mixed[call].clone()  # what follows may work in place
            if changed is not None and call in changed:
                output = output.clone()
                for row, neuron in changed[call]:
                    output[row, *np.unravel_index(neuron, output.shape[1:])] += PROBE
            return output

        with ExitStack() as stack, torch.no_grad():
            for name in {call[0] for call in calls}:
                hook = modules[name].register_forward_pre_hook(
                    lambda m, a, k, name=name: before(tensor_argument(a, k), name),
                    with_kwargs=True,
                )
                stack.callback(hook.remove)
            stack.enter_context(watch_calls(network, [n for n, m in modules.items() if n], after))
            network(batch)

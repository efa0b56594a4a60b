"""Layers whose outputs are looked at: named by the user, or the last of each stage of a network."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from progip.batch_axis import BatchAxis
from progip.engine.sites import hookable
from progip.errors import ProgipError
from progip.models.calls import Call, watch_calls
from progip.protections.placement import images_in


@dataclass(frozen=True)
class Looked:
    """Calls of a forward pass, in order of execution, and where images lie in their outputs."""

    axis: dict[Call, BatchAxis]

    @property
    def layers(self) -> set[str]:
        return {layer for layer, _ in self.axis}


def looked_at(owner: str, network: nn.Module, images: Tensor, chosen: str) -> Looked:
    """The calls of one forward pass whose outputs are looked at.

    By default the last of each stage: of the calls that every path goes through
    (as autograd sees them), those after which the shape of an image's tensor changes, and the last.
    Of a ResNet these are the last block of each stage, the pooled feature and the logits; of a
    DenseNet what comes before and after each transition, too.

    Args:
        owner: in words, for errors: ``probe 'layer_traces'``.
        images: (n, channels, height, width), n >= 2, to look with.
        chosen: regular expression of whole names; "" for the last of each stage.

    Raises:
        ProgipError: nothing fits, the images of a batch cannot be told apart in one of the
            outputs, or stages are wanted of a network whose output has no gradient.
    """
    try:
        pattern = re.compile(chosen)
    except re.error as error:
        raise ProgipError(f"{owner}: '{chosen}' is not a regular expression: {error}") from error
    names = {name for name, _ in hookable(network)}
    shapes: dict[Call, tuple[int, ...]] = {}
    made_by: dict[Call, Any] = {}

    def seen(call: Call, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.dim() > 1:
            shapes[call] = tuple(size for size in output.shape if size != 1)
            made_by[call] = output.grad_fn

    with watch_calls(network, names, seen), torch.enable_grad():
        given = images.detach().requires_grad_(True).clone()
        logits = network(given)
    if chosen:
        calls = [call for call in shapes if pattern.fullmatch(call[0])]
        if not calls:
            found = ", ".join(dict.fromkeys(layer for layer, _ in shapes))
            raise ProgipError(f"{owner}: '{chosen}' matches no layer; there are {found}")
    else:
        calls = [call for call, node in made_by.items() if node is not None]
        if logits.grad_fn is None or not calls:
            raise ProgipError(
                f"{owner}: the output of {type(network).__name__} has no gradient, so its stages "
                "cannot be found; name layers, as a regular expression after a colon"
            )
        every = _on_every_path(given.grad_fn, logits.grad_fn)
        calls = [call for call in calls if made_by[call] in every]
        after = [*(shapes[call] for call in calls[1:]), None]
        calls = [call for call, then in zip(calls, after, strict=True) if then != shapes[call]]
    axes = {}
    for call, axis in images_in(network, calls, images).items():
        if not isinstance(axis, BatchAxis):
            reason = axis or "is the same for every image"
            raise ProgipError(
                f"{owner}: the output of layer '{call[0]}' {reason}; choose other layers"
            )
        axes[call] = axis
    return Looked({call: axes[call] for call in calls})


def _on_every_path(source: Any, sink: Any) -> Collection[Any]:
    """The nodes of an autograd graph that every path from source to sink goes through.

    In the order in which they were made, a node on a path is on all of them exactly if no edge
    between others of these leads past it.
    """
    users: dict[Any, list[Any]] = {sink: []}
    waiting = [sink]
    while waiting:
        node = waiting.pop()
        for given, _ in node.next_functions:
            if given is None:
                continue
            if given not in users:
                users[given] = []
                waiting.append(given)
            users[given].append(node)
    between, waiting = {source}, [source]
    while waiting:
        for user in users.get(waiting.pop(), ()):
            if user not in between:
                between.add(user)
                waiting.append(user)
    order = {node: node._sequence_nr() for node in between}
    found, reach = set(), 0
    for node in sorted(between, key=order.__getitem__):
        if reach <= order[node]:
            found.add(node)
        reach = max([reach, *(order[user] for user in users.get(node, ()))])
    return found

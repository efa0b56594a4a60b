"""The largest clean value of every ReLU, by layer, channel or neuron."""

import torch
from torch import Tensor, nn

from progip.models.calls import Call, watch_calls
from progip.protections.bounded.data import BATCH


@torch.no_grad()
def maxima(
    network: nn.Module, calls: list[Call], images: Tensor, granularity: str
) -> dict[Call, Tensor]:
    """The running maximum over images of the outputs of these calls.

    Args:
        granularity: ``layer``: shape (); ``channel``: as a row's output, 1 everywhere but at the
            channels; ``neuron``: as a row's output; ``hybrid``: ``neuron`` at the last call,
            ``layer`` at the others.
    """
    found: dict[Call, Tensor] = {}
    rows = 0

    def seen(call: Call, _: object, output: Tensor) -> None:
        shared = granularity
        if granularity == "hybrid":
            shared = "neuron" if call == calls[-1] else "layer"
        # a token network may have merged windows into the batch axis
        by_row = output if len(output) == rows else output.unflatten(0, (rows, -1))
        most = _reduced(by_row.amax(0), shared, output.dim())
        found[call] = torch.maximum(found[call], most) if call in found else most

    with watch_calls(network, {layer for layer, _ in calls}, seen):
        for part in images.split(BATCH):
            rows = len(part)
            network(part)
    return found


def _reduced(most: Tensor, granularity: str, dimensions: int) -> Tensor:
    """Maxima of one row's values, of the output's so many dimensions, over what shares a bound."""
    if granularity == "neuron":
        return most
    if granularity == "layer":
        return most.amax()
    # channels are axis 1 of images and volumes, the last of features and tokens
    channel = most.dim() + (1 - dimensions if dimensions >= 4 else -1)
    others = [axis for axis in range(most.dim()) if axis != channel]
    return most.amax(others, keepdim=True) if others else most

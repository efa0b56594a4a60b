"""How many rows are executed at once: as many as asked for, as far as the memory goes."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from progip.engine.sites import hookable

log = logging.getLogger(__name__)


def fitting_batch(network: nn.Module, images: Tensor, batch_size: int, golden_memory: int) -> int:
    """The batch size asked for, or the largest power of two whose golden values fit the memory.

    Golden values of the three passes take about 3.2 times the outputs of all modules (ResNet-20:
    2.0, DenseNet-BC-100-12: 3.15); 60 % of the memory is for them, the rest for runs under way.

    Args:
        images: (2, channels, height, width), on the device.
        batch_size: asked for.
        golden_memory: bytes.
    """
    outputs: list[int] = []

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.numel() * output.element_size() // len(images))

    handles = [module.register_forward_hook(hook) for _, module in hookable(network)]
    with torch.no_grad():
        network(images)
    for handle in handles:
        handle.remove()
    most = int(0.6 * golden_memory / (3.2 * max(sum(outputs), 1)))
    if most >= batch_size:
        return batch_size
    batch = max(2, 2 ** (max(most, 1).bit_length() - 1))
    log.info(
        "batches of %d instead of %d: golden values of %d MiB per image, golden_memory=%d",
        batch, batch_size, 3.2 * sum(outputs) / 2**20, golden_memory,
    )  # fmt: skip
    return batch

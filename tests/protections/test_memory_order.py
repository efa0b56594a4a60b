"""What a correcting protection learnt in one memory order, used in the other: real images."""

from pathlib import Path

import numpy as np
import torch
from tiny_networks import labelled
from torch import Tensor

from progip.models.loading import load_network
from progip.models.resnet_cifar import CifarResNet
from progip.protections.correcting import protected_evidence
from progip.protections.gradient_statistics import GradientStatistics


@torch.no_grad()
def test_limits_learnt_in_one_memory_order_hold_in_the_other(real_data: Path) -> None:
    protection = GradientStatistics(name="g", activation_check="none")
    spec = CifarResNet(
        name="resnet20", depth=20, weights=str(real_data / "weights/resnet20-12fca82f.th")
    )
    network = load_network(spec)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )

    def images(name: str, count: int) -> Tensor:
        with np.load(real_data / "cifar10" / name) as arrays:
            return (torch.from_numpy(arrays["data"][:count]) / 255 - mean) / std

    last = torch.channels_last
    train = images("train_lossless_6068.npz", 1000).contiguous(memory_format=last)
    clean = images("test_lossless_1017.npz", 1017)
    network = network.to(memory_format=last)
    state = protection.fit(network, labelled(train.split(100)))
    flags = []
    for order in (last, torch.contiguous_format):
        guarded = protection.protect(network.to(memory_format=order), state)
        found = []
        for part in clean.split(113):
            guarded(part.contiguous(memory_format=order))
            found.append(protected_evidence(guarded)["flagged"])
        flags.append(torch.cat(found))
    assert torch.equal(*flags)
    assert flags[0].sum() <= 1

"""The incremental executor equals the reference on the architectures of torchvision."""

from typing import Any

import pytest
import torch
from test_incremental import assert_equal
from torch import nn

from progip.compat import enable_torchvision
from progip.engine.incremental import IncrementalExecutor, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN

enable_torchvision()
import torchvision  # noqa: E402  # importable only after the line above

FAST = ["alexnet", "resnet18", "squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5"]
SLOW = [
    "vgg11", "vgg11_bn", "vgg13_bn", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2",
    "squeezenet1_0", "mobilenet_v2", "mobilenet_v3_large", "shufflenet_v2_x1_0", "mnasnet0_5",
    "mnasnet1_0", "regnet_x_400mf", "regnet_y_400mf", "regnet_y_800mf", "efficientnet_b0",
    "efficientnet_b1", "efficientnet_v2_s", "googlenet", "inception_v3", "densenet121",
    "convnext_tiny", "convnext_small", "swin_t", "swin_s", "swin_v2_t", "vit_b_32", "vit_b_16",
    "maxvit_t",
]  # fmt: skip
SIZES = {"inception_v3": 96, "alexnet": 80}
BATCH, RUNS = 4, 24


def build(name: str, size: int) -> nn.Module:
    options: dict[str, Any] = {"weights": None, "num_classes": 100}
    if name in ("inception_v3", "googlenet"):
        options |= {"init_weights": False, "aux_logits": True}
    if name.startswith("vit"):
        options["image_size"] = size
    torch.manual_seed(0)
    if name == "maxvit_t":  # its published form needs 224x224 images
        network = torchvision.models.MaxVit(
            (size, size), 16, 2, [16, 32], [1, 1], 8, 0.1, num_classes=100
        )
    else:
        network = torchvision.models.get_model(name, **options)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    return network.eval().requires_grad_(False)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_equals_reference(name: str) -> None:
    size = SIZES.get(name, 64)
    network = build(name, size)
    images = torch.randn(BATCH + 2, 3, size, size, generator=torch.Generator().manual_seed(1))
    method = ODIN(name="odin", std=[0.2] * 3, epsilon=0.01)
    with profiling(network, images[:2]) as ranges, torch.no_grad():
        network(images[:2])
    pipeline = Pipeline(network, method, ranges)
    sites = find_sites(network, method, images[:2])
    traced = Traced(pipeline, images[:BATCH])
    for fault_pass, found in sites.items():
        model = SingleBitFlip(name="flip")
        chosen = model.select(found)
        plan = model.plan(chosen, len(images), 0, fault_pass, 0, RUNS)
        reference = ReferenceExecutor(pipeline, chosen, fault_pass, images, BATCH)
        incremental = IncrementalExecutor(traced, chosen, fault_pass, images)
        assert_equal(reference.run(plan), incremental.run(plan))

"""ODIN against pytorch-ood and against its formula in NumPy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_ood.detector.odin import odin_preprocessing
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.odin import ODIN

STD = [0.2, 0.25, 0.3]


def make(**options: object) -> ODIN:
    return ODIN(**{"name": "odin", "std": STD, "epsilon": 0.01, **options})


def test_perturbation_equals_pytorch_ood(network: nn.Module, images: Tensor) -> None:
    ours = make(sign="sign", temperature=10.0).detect(network, images)
    theirs = odin_preprocessing(
        network, images.clone(), criterion=F.cross_entropy, eps=0.01, temperature=10.0,
        norm_std=STD,
    )  # fmt: skip
    torch.testing.assert_close(ours.perturbed, theirs, rtol=0, atol=1e-7)


def test_score_is_the_tempered_softmax(network: nn.Module, images: Tensor) -> None:
    found = make(temperature=7.0).detect(network, images)
    z = network(found.perturbed).double().numpy() / 7.0
    e = np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(
        found.score.numpy(), (e / e.sum(1, keepdims=True)).max(1), rtol=1e-12
    )
    assert found.score.dtype == torch.float64
    torch.testing.assert_close(found.logits, network(images), rtol=0, atol=0)


def test_gradient_is_that_of_the_tempered_cross_entropy(network: nn.Module, images: Tensor) -> None:
    x = images.clone().requires_grad_(True)
    z = network(x) / 1000.0
    F.cross_entropy(z, z.argmax(1), reduction="sum").backward()
    torch.testing.assert_close(
        make().detect(network, images).gradient, x.grad, rtol=1e-5, atol=1e-9
    )


def test_gradient_does_not_depend_on_the_batch(network: nn.Module, images: Tensor) -> None:
    whole = make().detect(network, images)
    for row in (0, 17, 39):
        alone = make().detect(network, images[row : row + 1])
        torch.testing.assert_close(alone.gradient[0], whole.gradient[row], rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(alone.score[0], whole.score[row], rtol=1e-6, atol=0)


def test_every_image_is_rescaled_by_std(network: nn.Module, images: Tensor) -> None:
    step = (images - make().detect(network, images).perturbed).abs()
    expected = torch.tensor([0.01 / s for s in STD]).view(1, 3, 1, 1).expand_as(step)
    torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-6)
    step = (images - make(rescale="none").detect(network, images).perturbed).abs()
    torch.testing.assert_close(step, torch.full_like(step, 0.01), rtol=1e-3, atol=1e-6)


def test_sign_of_zero_and_nan() -> None:
    image, gradient = torch.zeros(1, 1, 1, 3), torch.tensor([[[[0.0, float("nan"), -2.0]]]])
    ge = make(std=[1.0]).perturb(image, gradient)
    torch.testing.assert_close(ge, torch.tensor([[[[-0.01, 0.01, 0.01]]]]))
    plain = make(std=[1.0], sign="sign").perturb(image, gradient)
    torch.testing.assert_close(plain, torch.tensor([[[[0.0, 0.0, 0.01]]]]))


def test_the_step_raises_the_score(network: nn.Module, images: Tensor) -> None:
    moved = make(epsilon=1e-3).score(network, images)
    still = make(epsilon=0.0).score(network, images)
    assert (moved >= still).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"std": [0.0, 1.0, 1.0]}, "std"),
        ({"sign": "plus"}, "sign='plus'"),
        ({"rescale": "first_only"}, "rescale"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        make(**options)

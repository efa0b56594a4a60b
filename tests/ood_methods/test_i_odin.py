"""I-ODIN against ODIN, whose step it takes at one element, and a loop over images."""

import numpy as np
import torch
from torch import Tensor, nn

from progip.contracts import check_ood_method
from progip.ood_methods.i_odin import IODIN
from progip.ood_methods.odin import ODIN

OPTIONS = {"std": [0.2, 0.25, 0.3], "epsilon": 0.05, "temperature": 10.0}
NAN = float("nan")


def make(**options: object) -> IODIN:
    return IODIN(**{"name": "i_odin", **OPTIONS, **options})


def test_only_the_largest_gradient_moves(network: nn.Module, images: Tensor) -> None:
    found, odin = make().detect(network, images), ODIN(name="odin", **OPTIONS)
    everywhere = odin.detect(network, images)
    torch.testing.assert_close(found.gradient, everywhere.gradient, rtol=0, atol=0)
    expected = images.numpy().copy()
    for image, gradient, moved in zip(
        expected, found.gradient.numpy(), everywhere.perturbed.numpy(), strict=True
    ):
        place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        image[place] = moved[place]
    np.testing.assert_array_equal(found.perturbed.numpy(), expected)
    z = network(found.perturbed).double().numpy() / 10.0
    e = np.exp(z - z.max(1, keepdims=True))
    np.testing.assert_allclose(found.score.numpy(), (e / e.sum(1, keepdims=True)).max(1))


def test_memory_order_of_the_images_does_not_matter(network: nn.Module, images: Tensor) -> None:
    plain = make().detect(network, images).perturbed
    last = make().detect(network, images.contiguous(memory_format=torch.channels_last)).perturbed
    torch.testing.assert_close(plain, last)


def test_without_a_step_the_score_is_that_of_the_image(network: nn.Module, images: Tensor) -> None:
    still = make(epsilon=0.0).score(network, images)
    expected = torch.softmax(network(images).double() / 10.0, 1).amax(1)
    torch.testing.assert_close(still, expected, rtol=1e-12, atol=0)


def test_a_nan_is_the_largest_gradient_and_the_first_of_equals_is_taken() -> None:
    image, one = torch.zeros(3, 1, 2, 2), make(std=[1.0])
    gradient = torch.tensor([[9.0, NAN, float("inf"), NAN], [0.0] * 4, [1.0, -2.0, 2.0, 0.0]])
    moved = one.perturb(image, gradient.view(3, 1, 2, 2)).flatten(1)
    expected = torch.tensor([[0, 0.05, 0, 0], [-0.05, 0, 0, 0], [0, 0.05, 0, 0]])
    torch.testing.assert_close(moved, expected)
    plain = make(std=[1.0], sign="sign").perturb(image, gradient.view(3, 1, 2, 2)).flatten(1)
    torch.testing.assert_close(plain, expected * torch.tensor([[0.0], [0.0], [1.0]]))


def test_rows_do_not_depend_on_their_batch(network: nn.Module, images: Tensor) -> None:
    whole = make().detect(network, images)
    for row in (0, 17, 39):
        alone = make().detect(network, images[row : row + 1])
        torch.testing.assert_close(alone.perturbed[0], whole.perturbed[row])
        torch.testing.assert_close(alone.score[0], whole.score[row], rtol=1e-6, atol=0)


def test_contract_holds() -> None:
    check_ood_method(make())

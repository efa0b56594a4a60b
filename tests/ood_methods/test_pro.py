"""PRO against its formula, image by image."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from progip.contracts import check_ood_method
from progip.errors import ProgipError
from progip.ood_methods.max_softmax import MaxSoftmax
from progip.ood_methods.pro import PRO

STD = [0.2, 0.25, 0.3]


def make(**options: object) -> PRO:
    return PRO(**{"name": "pro", "std": STD, "epsilon": 0.02, **options})


def confidence(z: np.ndarray, kind: str, temperature: float) -> float:
    p = np.exp(z / temperature - (z / temperature).max())
    p /= p.sum()
    return float(p.max() if kind == "msp" else (p * np.log(p)).sum())


def reference(network: nn.Module, image: Tensor, steps: int, kind: str, t: float) -> list[float]:
    """The confidences of x_0 to x_steps, the gradient by autograd in another form."""
    x, path = image[None], []
    for step in range(steps + 1):
        x = x.detach().requires_grad_(True)
        z = network(x)[0]
        path.append(confidence(z.detach().double().numpy(), kind, t))
        if step < steps:
            if kind == "msp":
                value = 1 / torch.exp(z / t - z[z.argmax()] / t).sum()
            else:
                value = -torch.distributions.Categorical(logits=z / t).entropy()
            value.backward()
            x = x.detach() - 0.02 * torch.sign(x.grad)
    return path


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize(("kind", "t"), [("msp", 1.0), ("entropy", 0.5)])
def test_scores_are_those_of_the_path(
    network: nn.Module, images: Tensor, steps: int, kind: str, t: float
) -> None:
    paths = np.array([reference(network, image, steps, kind, t) for image in images])
    options = {"steps": steps, "confidence": kind, "temperature": t}
    lowest = make(**options).detect(network, images)
    last = make(**options, keep="last").detect(network, images)
    np.testing.assert_allclose(lowest.score.numpy(), paths.min(1), rtol=1e-4)
    np.testing.assert_allclose(last.score.numpy(), paths[:, -1], rtol=1e-4)
    assert (paths[:, 0] > paths[:, -1]).mean() > 0.9
    torch.testing.assert_close(lowest.logits, network(images), rtol=0, atol=0)
    torch.testing.assert_close(
        lowest.gradient, make(**options, epsilon=0.5).detect(network, images).gradient
    )  # of the image itself, which ProGIP watches


def test_the_minimum_has_the_image_itself(network: nn.Module, images: Tensor) -> None:
    far = make(epsilon=5.0, steps=2)
    plain = MaxSoftmax(name="m").score(network, images)
    last = make(epsilon=5.0, steps=2, keep="last").score(network, images)
    assert (last > plain).any()
    assert (far.score(network, images) <= plain).all()


@pytest.mark.parametrize("keep", ["minimum", "last"])
def test_without_a_step_the_score_is_that_of_the_image(
    network: nn.Module, images: Tensor, keep: str
) -> None:
    still = make(epsilon=0.0, steps=2, keep=keep).score(network, images)
    torch.testing.assert_close(
        still, MaxSoftmax(name="m").score(network, images), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("keep", ["minimum", "last"])
@pytest.mark.parametrize("call", [0, 1])
def test_a_logit_that_is_not_finite_gives_no_score(
    network: nn.Module, images: Tensor, value: float, keep: str, call: int
) -> None:
    calls = []

    def spoil(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
        calls.append(call)
        if len(calls) != call + 1:
            return None
        output = output.clone()
        output[3, 1] = value
        return output

    network[-1].register_forward_hook(spoil)
    score = make(keep=keep).score(network, images)
    assert torch.isnan(score).nonzero().tolist() == [[3]]


def test_rows_do_not_depend_on_their_batch(network: nn.Module, images: Tensor) -> None:
    whole = make(steps=2).detect(network, images)
    for row in (0, 17, 39):
        alone = make(steps=2).detect(network, images[row : row + 1])
        torch.testing.assert_close(alone.gradient[0], whole.gradient[row], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(alone.score[0], whole.score[row], rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [1, 3])
def test_contract_holds(steps: int) -> None:
    check_ood_method(make(steps=steps))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps=0"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"confidence": "gen"}, "confidence='gen'"),
        ({"keep": "first"}, "keep='first'"),
    ],
)
def test_wrong_options_are_named(options: dict, named: str) -> None:
    with pytest.raises(ProgipError, match=named):
        make(**options)

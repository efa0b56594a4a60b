"""Generalised ODIN against the formulas of its head, written in NumPy."""

import numpy as np
import pytest
import torch
from decomposed_networks import decomposed_network
from torch import Tensor, nn

from progip.contracts import check_ood_method
from progip.errors import ProgipError
from progip.models.heads.decomposed_confidence import SIMILARITIES, DecomposedConfidence
from progip.ood_methods.generalised_odin import GeneralisedODIN

STD = [0.2, 0.25, 0.3]


def make(**options: object) -> GeneralisedODIN:
    return GeneralisedODIN(**{"name": "generalised_odin", "std": STD, "epsilon": 0.01, **options})


def parts(network: nn.Module, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """h (n, classes) and g (n,) of the features before the head."""
    head = network[-1]
    f, w = network[:-1](images).double().numpy(), head.h.weight.double().numpy()
    if head.h.kind == "cosine":
        cosine = f @ w.T
        h = cosine / np.linalg.norm(f, axis=1)[:, None] / np.linalg.norm(w, axis=1)
    elif head.h.kind == "inner":
        h = f @ w.T + head.h.bias.double().numpy()
    else:
        h = -np.stack([((f - row) ** 2).mean(1) for row in w], 1)
    linear, norm = head.g[0], head.g[1]
    a = f @ linear.weight.double().numpy()[0] + linear.bias.item()
    a = (a - norm.running_mean.item()) / np.sqrt(norm.running_var.item() + norm.eps)
    return h, 1 / (1 + np.exp(-a * norm.weight.item() - norm.bias.item()))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_logits_and_scores_are_those_of_the_parts(similarity: str, images: Tensor) -> None:
    network = decomposed_network(similarity)
    h, g = parts(network, images)
    for confidence in ("h", "g"):
        found = make(confidence=confidence).detect(network, images)
        np.testing.assert_allclose(found.logits.numpy(), h / g[:, None], rtol=1e-4, atol=1e-5)
        moved = dict(zip("hg", parts(network, found.perturbed), strict=True))[confidence]
        expected = moved.max(1) if confidence == "h" else moved
        np.testing.assert_allclose(found.score.numpy(), expected, rtol=1e-4, atol=1e-6)
        still = make(confidence=confidence, epsilon=0.0).score(network, images).numpy()
        np.testing.assert_allclose(still, h.max(1) if confidence == "h" else g, rtol=1e-4)
        risen = make(confidence=confidence, epsilon=1e-3).score(network, images).numpy() >= still
        assert risen.mean() > 0.9  # the step goes up


def test_gradient_is_that_of_the_largest_h(images: Tensor) -> None:
    network = decomposed_network()
    gradient = make().detect(network, images[:2]).gradient.double()
    exact = network.double()
    x = images[:2].double()
    for index in ((0, 0, 3, 3), (1, 2, 5, 1)):
        step = torch.zeros_like(x)
        step[index] = 1e-5
        up, down = (parts(exact, x + s)[0].max(1)[index[0]] for s in (step, -step))
        assert gradient[index].item() == pytest.approx(-(up - down) / 2e-5, rel=1e-2, abs=1e-5)


def test_a_fault_in_h_is_in_the_score(images: Tensor) -> None:
    """The part is read behind hooks that were there before, as those of executors are."""
    network = decomposed_network()
    network[-1].h.register_forward_hook(lambda _, __, output: output + 100.0)
    assert (make().score(network, images) > 90).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_part_that_is_not_finite_gives_no_score(images: Tensor, value: float) -> None:
    network = decomposed_network()

    def spoil(_: nn.Module, __: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[3, 1] = value
        return output

    network[-1].h.register_forward_hook(spoil)
    assert torch.isnan(make().score(network, images)).nonzero().tolist() == [[3]]


def test_rows_do_not_depend_on_their_batch(images: Tensor) -> None:
    network = decomposed_network()
    whole = make().detect(network, images)
    for row in (0, 17, 39):
        alone = make().detect(network, images[row : row + 1])
        torch.testing.assert_close(alone.gradient[0], whole.gradient[row], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(alone.score[0], whole.score[row], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("confidence", ["h", "g"])
def test_contract_holds(images: Tensor, confidence: str) -> None:
    check_ood_method(make(confidence=confidence), decomposed_network(), images[:12])


def test_a_network_without_the_head_is_refused(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(ProgipError, match=r"generalised_odin.*DecomposedConf.*Sequential has"):
        make().detect(network, images)
    with pytest.raises(ProgipError, match="confidence='f'"):
        make(confidence="f")
    with pytest.raises(ProgipError, match="similarity='angle'"):
        DecomposedConfidence(4, 4, "angle")

"""Mahalanobis against scikit-learn and explicit float64 formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.covariance import EmpiricalCovariance
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.ood_methods.mahalanobis import Mahalanobis

LABELS = torch.arange(200) % 4


@pytest.fixture
def training() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(200, 3, 8, 8, generator=generator) + LABELS.view(-1, 1, 1, 1) * 0.5


def fitted(network: nn.Module, training: Tensor, **options: object) -> Mahalanobis:
    method = Mahalanobis(**{"name": "m", "std": [0.5] * 3, "epsilon": 0.01, **options})
    method.fit(network, [(training[i : i + 64], LABELS[i : i + 64]) for i in range(0, 200, 64)])
    return method


def features(network: nn.Module, x: Tensor) -> np.ndarray:
    return network[:-1](x).double().numpy()


def reference(network: nn.Module, training: Tensor, f: np.ndarray) -> np.ndarray:
    """M_c of features, by scikit-learn's covariance and a loop over classes."""
    train, labels = features(network, training), LABELS.numpy()
    means = np.stack([train[labels == c].mean(0) for c in range(4)])
    precision = EmpiricalCovariance(assume_centered=False).fit(train - means[labels]).precision_
    return np.stack([-np.einsum("ni,ij,nj->n", f - m, precision, f - m) for m in means], 1)


def test_scores_equal_scikit_learn(network: nn.Module, training: Tensor, images: Tensor) -> None:
    method = fitted(network, training)
    f = features(network, images)
    ours = method.class_scores(torch.from_numpy(f)).numpy()
    np.testing.assert_allclose(ours, reference(network, training, f), rtol=1e-8)
    found = method.detect(network, images)
    expected = reference(network, training, features(network, found.perturbed)).max(1)
    np.testing.assert_allclose(found.score.numpy(), expected, rtol=1e-8)


def test_gradient_is_that_of_the_distance(
    network: nn.Module, training: Tensor, images: Tensor
) -> None:
    method = fitted(network, training)
    gradient = method.detect(network, images[:2]).gradient.double()
    exact = network.double()

    def distance(x: Tensor) -> Tensor:
        return -method.class_scores(exact[:-1](x)).amax(1)

    x = images[:2].double()
    for index in ((0, 0, 3, 3), (1, 2, 5, 1)):
        step = torch.zeros_like(x)
        step[index] = 1e-5
        slope = (distance(x + step) - distance(x - step))[index[0]] / 2e-5
        torch.testing.assert_close(gradient[index], slope, rtol=1e-2, atol=1e-4)


def test_the_factor_one_half(network: nn.Module, training: Tensor, images: Tensor) -> None:
    whole, half = (fitted(network, training, half=h).detect(network, images) for h in (False, True))
    torch.testing.assert_close(half.gradient, whole.gradient / 2, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(half.perturbed, whole.perturbed)
    torch.testing.assert_close(half.score, whole.score / 2)


def test_collinear_features_never_give_a_positive_score(images: Tensor) -> None:
    """Sheet 02: 24 nearly collinear channels once gave an indefinite float32 precision."""
    f = images[:, :, 0, 0].repeat(1, 8).double()
    f[:, 3:] += 1e-9 * torch.randn(40, 21, generator=torch.Generator().manual_seed(0))
    method = Mahalanobis(name="m", feature="logits")
    head = nn.Flatten()
    method.fit(head, [(f.float(), LABELS[:40])])
    scores = method.class_scores(100 * f)
    assert (scores <= 0).all()
    assert torch.isfinite(scores).all()
    assert method.state()["whitening"].shape[1] == 3


def test_gradient_does_not_pass_through_the_head(
    network: nn.Module, training: Tensor, images: Tensor
) -> None:
    method = fitted(network, training)
    before = method.detect(network, images)
    network[-1].weight.mul_(3.0)
    after = method.detect(network, images)
    torch.testing.assert_close(before.gradient, after.gradient, rtol=0, atol=0)
    torch.testing.assert_close(
        before.logits - network[-1].bias, (after.logits - network[-1].bias) / 3
    )


def test_logits_as_feature_and_state(network: nn.Module, training: Tensor, images: Tensor) -> None:
    method = fitted(network, training, feature="logits")
    again = Mahalanobis(name="m", std=[0.5] * 3, epsilon=0.01, feature="logits")
    again.load_state(method.state())
    torch.testing.assert_close(
        method.score(network, images), again.score(network, images), rtol=0, atol=0
    )


def test_errors_name_the_cause(network: nn.Module, training: Tensor, images: Tensor) -> None:
    with pytest.raises(ProgipError, match="call fit"):
        Mahalanobis(name="m").detect(network, images)
    with pytest.raises(ProgipError, match="no training image"):
        Mahalanobis(name="m").fit(network, [(training, LABELS * 2)])
    with pytest.raises(ProgipError, match="not finite"):
        Mahalanobis(name="m").fit(network, [(training * float("nan"), LABELS)])
    with pytest.raises(ProgipError, match="feature='x'"):
        Mahalanobis(name="m", feature="x")


def test_a_loaded_state_computes_the_same_bits(tmp_path: Path) -> None:
    """At the 342 dimensions of DenseNet-BC, where a product's bits depend on strides."""
    generator = torch.Generator().manual_seed(3)
    f = torch.randn(2000, 342, generator=generator)
    fitted_one, loaded = (Mahalanobis(name="m", feature="logits") for _ in range(2))
    fitted_one.fit(nn.Flatten(), [(f, torch.arange(2000) % 10)])
    save_file(fitted_one.state(), tmp_path / "state.safetensors")
    loaded.load_state(load_file(tmp_path / "state.safetensors"))
    for rows in (8, 32):
        one, other = (m.class_scores(f[:rows]) for m in (fitted_one, loaded))
        assert torch.equal(one, other)

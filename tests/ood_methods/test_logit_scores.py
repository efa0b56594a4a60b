"""Detectors of one forward pass against pytorch-ood, SciPy and formulas in NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_ood.detector import EnergyBased
from pytorch_ood.detector import MaxLogit as TheirMaxLogit
from pytorch_ood.detector import MaxSoftmax as TheirMaxSoftmax
from pytorch_ood.detector import OpenMax as TheirOpenMax
from scipy.optimize import brentq
from scipy.special import logsumexp
from tiny_networks import balanced_network
from torch import Tensor, nn

from progip.config import cell_settings, composed
from progip.contracts import check_ood_method
from progip.errors import ProgipError
from progip.ood_methods.energy import Energy
from progip.ood_methods.logit_score import LogitScore
from progip.ood_methods.max_logit import MaxLogit
from progip.ood_methods.max_softmax import MaxSoftmax
from progip.ood_methods.openmax import OpenMax

CONF = Path(__file__).resolve().parents[2] / "conf"
INF, NAN = float("inf"), float("nan")


@pytest.fixture
def training() -> Tensor:
    """Logits of 400 images in 4 well-separated classes, in their order."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(400, 4, generator=generator)
    return logits + 6 * torch.eye(4)[torch.arange(400) % 4]


def fitted(logits: Tensor, **options: int) -> OpenMax:
    """To a network that hands on the logits it is given; images of another label are left out."""
    method = OpenMax(name="openmax", **options)
    labels = torch.arange(len(logits)) % logits.shape[1]
    parts = ((logits[i : i + 64], labels[i : i + 64]) for i in range(0, len(logits), 64))
    method.fit(nn.Flatten(), parts)
    return method


def every_method(training: Tensor) -> list[LogitScore]:
    return [
        MaxSoftmax(name="max_softmax"),
        MaxLogit(name="max_logit"),
        Energy(name="energy"),
        fitted(training),
    ]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MaxSoftmax(name="m"), TheirMaxSoftmax),
        (MaxLogit(name="m"), TheirMaxLogit),
        (Energy(name="m"), EnergyBased),
        (Energy(name="m", temperature=3.0), lambda network: EnergyBased(network, t=3.0)),
    ],
)
def test_scores_equal_pytorch_ood(
    ours: LogitScore, theirs: type, network: nn.Module, images: Tensor
) -> None:
    expected = -theirs(network.double()).predict(images.double())
    network.float()
    found = ours.detect(network, images)
    torch.testing.assert_close(found.score, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.logits, network(images), rtol=0, atol=0)


def test_scores_equal_their_formulas() -> None:
    z = torch.tensor([[1.0, -2.0, 30.0], [80.0, 79.0, -300.0]])
    n = z.double().numpy()
    e = np.exp(n - n.max(1, keepdims=True))
    softmax = (e / e.sum(1, keepdims=True)).max(1)
    for method, expected in (
        (MaxSoftmax(name="m"), softmax),
        (MaxLogit(name="m"), n.max(1)),
        (Energy(name="m", temperature=0.5), 0.5 * logsumexp(n / 0.5, axis=1)),
    ):
        np.testing.assert_allclose(method.score(nn.Flatten(), z).numpy(), expected, rtol=1e-12)


def test_the_tail_is_fitted_by_maximum_likelihood(training: Tensor) -> None:
    """Against the likelihood equation of the shape, solved by bisection."""
    state, z = fitted(training, tail=20).state(), training.double().numpy()
    for klass in range(4):
        own = z[(np.arange(400) % 4 == klass) & (z.argmax(1) == klass)]
        np.testing.assert_allclose(state["means"][klass].numpy(), own.mean(0), rtol=1e-12)
        tail = np.sort(np.linalg.norm(own - own.mean(0), axis=1))[-20:]
        moved = np.log(tail - tail[0] + 10_000)

        def equation(shape: float, logs: np.ndarray = moved) -> float:
            weights = np.exp(shape * (logs - logs.max()))
            return float((weights * logs).sum() / weights.sum() - 1 / shape - logs.mean())

        shape = brentq(equation, 1e2, 1e7)
        scale = np.exp(moved.max()) * np.mean(np.exp(shape * (moved - moved.max()))) ** (1 / shape)
        assert state["shape"][klass].item() == pytest.approx(shape, rel=1e-4)
        assert state["scale"][klass].item() == pytest.approx(scale, rel=1e-6)


def openmax(method: OpenMax, z: np.ndarray, alpha: int) -> np.ndarray:
    """Algorithm 2 of the paper, image by image: the probability of the unknown class."""
    state = {name: values.numpy() for name, values in method.state().items()}
    unknown = []
    for row in z:
        distance = np.linalg.norm(row - state["means"], axis=1) - state["least"] + 10_000
        cdf = 1 - np.exp(-((distance / state["scale"]) ** state["shape"]))
        weight = np.ones(len(row))
        for rank, klass in enumerate(np.argsort(-row)[:alpha]):
            weight[klass] = 1 - (alpha - rank) / alpha * cdf[klass]
        revised = np.append((row * (1 - weight)).sum(), row * weight)
        unknown.append(np.exp(revised[0] - logsumexp(revised)))
    return np.array(unknown)


@pytest.mark.parametrize("alpha", [1, 3, 4])
def test_openmax_equals_the_algorithm_of_the_paper(training: Tensor, alpha: int) -> None:
    method = fitted(training, alpha=alpha)
    z = training[:50] + 1.5 * torch.randn(50, 4, generator=torch.Generator().manual_seed(8))
    expected = openmax(method, z.double().numpy(), alpha)
    assert np.ptp(expected) > 0.05  # some are known, some not
    np.testing.assert_allclose(-method.score(nn.Flatten(), z).numpy(), expected, rtol=1e-9)
    everything = fitted(training, alpha=99)
    torch.testing.assert_close(
        everything.score(nn.Flatten(), z), fitted(training, alpha=4).score(nn.Flatten(), z)
    )


def test_openmax_equals_pytorch_ood(training: Tensor) -> None:
    """With the same Weibull fit: theirs ends where scipy's search from its own start does."""
    right = training.argmax(1) == torch.arange(400) % 4
    theirs = TheirOpenMax(None, tailsize=20, alpha=4)
    theirs.fit_logits(training[right], (torch.arange(400) % 4)[right])
    method = fitted(training, alpha=4)
    for klass, model in theirs._openmax.distributions.items():
        assert model.min_val == pytest.approx(method.state()["least"][klass].item(), rel=1e-5)
        model.c, model.scale = (method.state()[n][klass].item() for n in ("shape", "scale"))
    z = training[:80] * 0.7
    assert len(z.argmax(1).unique()) == 4  # it measures distances to the batch's classes alone
    expected = -theirs.predict_logits(z)
    torch.testing.assert_close(
        method.score(nn.Flatten(), z), expected.double(), rtol=1e-3, atol=1e-9
    )


def test_far_inputs_are_unknown_and_typical_ones_known(training: Tensor) -> None:
    method = fitted(training)
    typical = method.state()["means"].float()
    far = typical + 40 * torch.eye(4)
    assert (method.score(nn.Flatten(), typical) > -0.01).all()
    assert (method.score(nn.Flatten(), far) < -0.99).all()


def test_rows_do_not_depend_on_their_batch(training: Tensor) -> None:
    for method in every_method(training):
        whole = method.score(nn.Flatten(), training)
        for row in (0, 17, 399):
            alone = method.score(nn.Flatten(), training[row : row + 1])
            torch.testing.assert_close(alone[0], whole[row], rtol=1e-12, atol=0)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_logit_that_is_not_finite_gives_no_score(training: Tensor, value: float) -> None:
    z = training[:8].clone()
    z[3, 2] = value
    for method in every_method(training):
        score = method.score(nn.Flatten(), z)
        assert torch.isnan(score).tolist() == [row == 3 for row in range(8)], method.name
    z[3, 2] = 3e38
    for method in every_method(training):
        assert torch.isfinite(method.score(nn.Flatten(), z)).all(), method.name


def test_contracts_hold() -> None:
    for method in (MaxSoftmax(name="m"), MaxLogit(name="m"), Energy(name="m", temperature=2.0)):
        check_ood_method(method)
    images = torch.randn(200, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    network = balanced_network(images)
    check_ood_method(OpenMax(name="m"), network, images, network(images).argmax(1))


def test_state_is_taken_back(training: Tensor) -> None:
    method, again = fitted(training), OpenMax(name="openmax")
    with pytest.raises(ProgipError, match="call fit"):
        again.state()
    again.load_state(method.state())
    assert torch.equal(again.score(nn.Flatten(), training), method.score(nn.Flatten(), training))


def test_wrong_input_is_named(training: Tensor) -> None:
    for options in ({"tail": 1}, {"alpha": 0}):
        with pytest.raises(ProgipError, match=r"openmax.*tail must be"):
            OpenMax(name="openmax", **options)
    with pytest.raises(ProgipError, match=r"energy.*temperature"):
        Energy(name="energy", temperature=0.0)
    with pytest.raises(ProgipError, match="class 0 has 0 correctly classified"):
        fitted(training.roll(1, 1))
    with pytest.raises(ProgipError, match=r"class 0 has 100 .*too alike"):
        fitted(5 * torch.eye(4).repeat(100, 1))
    with pytest.raises(ProgipError, match="not finite"):
        fitted(training * NAN)


@pytest.mark.parametrize("method", ["max_softmax", "max_logit", "energy", "openmax"])
def test_progip_has_nothing_to_watch(method: str) -> None:
    overrides = [f"ood_method={method}", "protection=progip", "pass=first_forward"]
    with pytest.raises(ProgipError, match=f"'progip' looks at grad_max.*'{method}'"):
        cell_settings(composed(overrides, CONF))
    with pytest.raises(ProgipError, match=f"pass=backward: ood_method '{method}' has only"):
        cell_settings(composed([f"ood_method={method}", "protection=none", "pass=backward"], CONF))

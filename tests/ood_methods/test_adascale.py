"""AdaSCALE against its five steps, written image by image in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from progip.contracts import check_ood_method
from progip.errors import ProgipError
from progip.ood_methods.adascale import AdaSCALE

STD = [0.2, 0.25, 0.3]
WIDTH = 40


def make(**options: object) -> AdaSCALE:
    small = {"pixels": 0.1, "shift_top": 10.0, "feature_top": 20.0, "p_low": 60.0, "p_high": 90.0}
    return AdaSCALE(**{"name": "adascale", "std": STD, **small, **options})


@pytest.fixture
def wide() -> nn.Module:
    """A network whose feature has 40 values, half of them zero."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        layers = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, WIDTH), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Linear(WIDTH, 4))
    return network.eval().requires_grad_(False)


@pytest.fixture
def training() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(9)
    return [(torch.randn(25, 3, 8, 8, generator=generator), torch.zeros(25)) for _ in range(3)]


def perturbed(network: nn.Module, image: Tensor) -> Tensor:
    x = image[None].requires_grad_(True)
    network(x).max().backward()
    gradient = x.grad[0].flatten().numpy()
    moved = image.detach().flatten().numpy().copy()
    least = np.argsort(np.abs(gradient), kind="stable")[: int(0.1 * gradient.size)]
    moved[least] += np.float32(0.5) * np.sign(gradient[least])
    return torch.from_numpy(moved).view(1, *image.shape)


def shift(network: nn.Module, image: Tensor) -> float:
    """Q' of one image; a tenth of the features are 4, a fifth 8."""
    features = [
        network[:-1](x)[0].double().numpy() for x in (image[None], perturbed(network, image))
    ]
    order = np.argsort(-features[0], kind="stable")
    moved = np.abs(features[0] - features[1])[order[:4]].sum()
    return float(10 * moved + np.maximum(features[1], 0)[order[:8]].sum())


def reference(network: nn.Module, image: Tensor, known: np.ndarray, variant: str) -> float:
    share = (known <= shift(network, image) * (1 + 1e-9)).mean()
    kept = WIDTH - int(np.round(WIDTH * (60 + (1 - share) * 30) / 100))
    a = network[:-1](image[None])[0].double().numpy()
    r = a.sum() / np.sort(a)[-kept:].sum()  # behind a ReLU
    weight, bias = network[-1].weight.double().numpy(), network[-1].bias.double().numpy()
    z = weight @ (a * np.exp(r)) + bias if variant == "activation" else (weight @ a + bias) * r**2
    return float(np.log(np.exp(z - z.max()).sum()) + z.max())


@pytest.mark.parametrize("variant", ["activation", "logit"])
def test_equals_its_five_steps(
    wide: nn.Module, images: Tensor, training: list[tuple[Tensor, Tensor]], variant: str
) -> None:
    method = make(variant=variant)
    method.fit(wide, training)
    known = np.sort([shift(wide, image) for part, _ in training for image in part])
    np.testing.assert_allclose(method.state()["shifts"].numpy(), known, rtol=1e-4)
    found = method.detect(wide, images)
    expected = torch.cat([perturbed(wide, image) for image in images])
    torch.testing.assert_close(found.perturbed, expected)
    scores = [reference(wide, x, method.state()["shifts"].numpy(), variant) for x in images]
    np.testing.assert_allclose(found.score.numpy(), scores, rtol=1e-4)
    percentiles = method.percentile(torch.tensor([shift(wide, image) for image in images]).double())
    assert percentiles.max() - percentiles.min() > 10  # it does adapt


def test_without_a_step_only_the_kept_features_count(
    wide: nn.Module, images: Tensor, training: list[tuple[Tensor, Tensor]]
) -> None:
    method = make(epsilon=0.0)
    method.fit(wide, training)
    assert torch.equal(method.detect(wide, images).perturbed, images)
    feature = wide[:-1](images)
    kept = feature.double().topk(8, 1).values.sum(1)
    torch.testing.assert_close(method.shift(feature, feature), kept, rtol=1e-12, atol=0)
    scale = method.scale(feature, method.percentile(kept))
    z = wide[-1](feature * torch.exp(scale).float().unsqueeze(1)).double()
    torch.testing.assert_close(method.score(wide, images), z.logsumexp(1), rtol=1e-9, atol=0)


def test_equal_percentiles_are_those_of_scale(
    wide: nn.Module, images: Tensor, training: list[tuple[Tensor, Tensor]]
) -> None:
    """With p_low = p_high the percentile is fixed, whatever the shift."""
    method = make(p_low=75.0, p_high=75.0)
    method.fit(wide, training)
    feature = wide[:-1](images).double()
    r = feature.sum(1) / feature.topk(10, 1).values.sum(1)
    torch.testing.assert_close(method.scale(feature, torch.full((40,), 75.0).double()), r)
    z = wide[-1](feature.float() * torch.exp(r).float().unsqueeze(1)).double()
    torch.testing.assert_close(method.score(wide, images), z.logsumexp(1), rtol=1e-6, atol=0)


def test_the_percentile_falls_with_the_share_of_training_images_that_shift_no_more() -> None:
    method = make()
    method.load_state({"shifts": torch.tensor([1.0, 2.0, 3.0, 4.0]).double()})
    found = method.percentile(torch.tensor([0.5, 1.0, 2.5, 4.0, 9.0, float("nan")]).double())
    assert found.tolist() == [90.0, 82.5, 75.0, 60.0, 60.0, 60.0]


def test_a_nan_in_the_gradient_perturbs_nothing() -> None:
    gradient = torch.tensor([[3.0, float("nan"), -0.1, float("inf")]]).view(1, 1, 2, 2)
    moved = make(std=[1.0], pixels=0.5).perturb(torch.zeros(1, 1, 2, 2), gradient)
    torch.testing.assert_close(moved.flatten(), torch.tensor([-0.5, 0.0, 0.5, 0.0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("layer", "call"), [(5, 0), (4, 0), (4, 1), (5, 2)])
def test_a_value_that_is_not_finite_gives_no_score(
    wide: nn.Module,
    images: Tensor,
    training: list[tuple[Tensor, Tensor]],
    value: float,
    layer: int,
    call: int,
) -> None:
    """In logits or features of either pass, or in the scaled logits."""
    method, calls = make(), []
    method.fit(wide, training)

    def spoil(_: nn.Module, __: object, output: Tensor) -> Tensor | None:
        calls.append(call)
        if len(calls) != call + 1:
            return None
        output = output.clone()
        output[3, 1] = value
        return output

    wide[layer].register_forward_hook(spoil)
    assert torch.isnan(method.score(wide, images)).nonzero().tolist() == [[3]]


def test_rows_do_not_depend_on_their_batch(
    wide: nn.Module, images: Tensor, training: list[tuple[Tensor, Tensor]]
) -> None:
    method = make()
    method.fit(wide, training)
    whole = method.detect(wide, images)
    for row in (0, 17, 39):
        alone = method.detect(wide, images[row : row + 1])
        torch.testing.assert_close(alone.perturbed[0], whole.perturbed[row])
        torch.testing.assert_close(alone.score[0], whole.score[row], rtol=1e-5, atol=0)


def test_only_so_many_samples_are_kept(
    wide: nn.Module, training: list[tuple[Tensor, Tensor]]
) -> None:
    method, calls = make(samples=30), []
    wide.register_forward_hook(lambda *_: calls.append(1))
    method.fit(wide, training)
    assert len(method.state()["shifts"]) == 30
    assert len(calls) == 2 + 2 + 1  # ranges are profiled on the rest all the same


@pytest.mark.parametrize("variant", ["activation", "logit"])
def test_contract_holds(variant: str) -> None:
    check_ood_method(make(variant=variant))


def test_errors_name_the_cause(wide: nn.Module, images: Tensor) -> None:
    with pytest.raises(ProgipError, match="call fit"):
        make().detect(wide, images)
    with pytest.raises(ProgipError, match=r"feature layer.*ood_method.feature_layer"):
        make(feature_layer="0").detect(wide, images)
    for options in ({"pixels": 2.0}, {"p_low": 95.0}, {"p_high": 100.0}, {"samples": 0}):
        with pytest.raises(ProgipError, match=r"adascale.*must be"):
            make(**options)
    with pytest.raises(ProgipError, match="variant='x'"):
        make(variant="x")

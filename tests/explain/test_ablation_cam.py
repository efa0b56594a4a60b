"""Ablation-CAM against pytorch-grad-cam and against the formula; maps compared."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.explain.ablation_cam import ablation_cam, cam, correlation, last_maps, overlap
from progip.explain.weight_errors import Errors, moved_maps, summary
from progip.models.digits import DigitsResNet
from progip.models.heads.text_guided import TextGuided
from progip.models.loading import seeded_network


def network(seed: int, head: TextGuided | None = None) -> nn.Module:
    made = seeded_network(DigitsResNet(name="digits", head=head), seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.05, 0.3)
        nn.init.uniform_(made.get_submodule("linear.project" if head else "linear").bias, 2, 4)
    return made.eval().requires_grad_(False)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("faults", [0, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_that_of_the_library(seed: int, faults: int) -> None:
    """Where the logit is positive, by which the library divides, and after a ReLU."""
    made, compared = network(seed), 0
    if faults:
        errors = Errors.drawn(made, made, 40 * faults, seed)
        low = errors.bit < 30  # those of the highest exponent leave nothing to compare
        Errors(
            errors.names, *(p[low] for p in (errors.parameter, errors.element, errors.bit))
        ).flip(made)
    layer = last_maps(made, images(1))
    assert layer == "layer3.0.relu2"
    for index, image in enumerate(images(4, seed)):
        logits = made(image[None])[0]
        label = int(logits.argmax())
        if logits[label] <= 0:
            continue
        library = AblationCAM(made, [made.get_submodule(layer)], batch_size=7)
        expected = library(image[None], [ClassifierOutputTarget(label)])[0]
        found = ablation_cam(made, layer, image[None], label, batch_size=5)
        assert found is not None, index
        # the library scales before it enlarges (OpenCV), so values differ a little at the edges
        assert correlation(found, expected.astype(float)) > 0.98
        assert overlap(found, expected.astype(float)) > 0.8
        compared += 1
    assert compared >= 2


def test_the_map_is_the_formula() -> None:
    made, image = network(1), images(1)
    layer = "layer3.0.relu2"
    seen: list[Tensor] = []
    handle = made.get_submodule(layer).register_forward_hook(lambda m, a, o: seen.append(o))
    y = made(image)[0]
    handle.remove()
    for label in y.argsort(descending=True)[[0, 1, -1]].tolist():
        total = torch.zeros(seen[0].shape[2:], dtype=torch.double)
        for k in range(seen[0].shape[1]):
            changed = seen[0].clone()
            changed[0, k] = 0
            rest = made.linear(made.flatten(made.avgpool(changed)))[0, label]
            total += (y[label] - rest).double() / abs(float(y[label])) * seen[0][0, k].double()
        whole = nn.functional.interpolate(
            total.relu()[None, None], (16, 16), mode="bilinear", align_corners=False
        )[0, 0]
        expected = ((whole - whole.min()) / (whole.max() - whole.min()).clamp(min=1e-300)).numpy()
        found = ablation_cam(made, layer, image, label)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_score_of_zero_or_nan() -> None:
    maps, ablated = torch.rand(3, 2, 2), torch.tensor([-1.0, 0.0, 0.0])
    whole = cam(maps, 0.0, ablated, (4, 4))
    assert whole is not None
    assert whole.max() == 1.0
    assert cam(maps, float("nan"), ablated, (4, 4)) is None
    assert cam(maps * torch.inf, 1.0, ablated, (4, 4)) is None
    assert (cam(maps, 0.0, ablated * 0, (4, 4)) == 0).all()  # type: ignore[union-attr]


def test_maps_compared() -> None:
    one = np.arange(100.0).reshape(10, 10)
    assert overlap(one, one) == 1.0
    assert overlap(one, -one) == 0.0
    shifted = np.roll(one.ravel(), 10).reshape(10, 10)  # ten of twenty shared
    assert overlap(one, shifted) == pytest.approx(10 / 30)
    assert correlation(one, 3 * one + 1) == pytest.approx(1)
    assert correlation(one, -one) == pytest.approx(-1)
    assert correlation(one, shifted) == pytest.approx(
        np.corrcoef(one.ravel(), shifted.ravel())[0, 1]
    )
    assert np.isnan(correlation(one, np.zeros((10, 10))))


def test_networks_without_maps() -> None:
    with pytest.raises(ProgipError, match="gives no maps"):
        last_maps(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), images(1))


def test_the_same_errors_in_both_networks_and_taken_back() -> None:
    plain, text = network(0), network(0, TextGuided(width=16))
    before = {name: value.clone() for name, value in text.state_dict().items()}
    errors = Errors.drawn(plain, text, 2000, 3)
    bits = set(
        zip(errors.parameter.tolist(), errors.element.tolist(), errors.bit.tolist(), strict=True)
    )
    assert len(bits) == 2000
    assert not any(name.startswith("linear") for name in errors.names)
    errors.flip(plain)
    errors.flip(text)
    ours, theirs = plain.state_dict(), text.state_dict()
    wrong = 0
    for name in errors.names:
        assert torch.equal(ours[name].view(torch.int32), theirs[name].view(torch.int32))
        change = theirs[name].view(torch.int32) ^ before[name].view(torch.int32)
        wrong += sum(int(x).bit_count() for x in (change.numpy().view(np.uint32)).ravel())
    assert wrong == 2000
    errors.flip(text)
    assert all(torch.equal(value, before[name]) for name, value in text.state_dict().items())
    with pytest.raises(ProgipError, match="share 0 bits"):
        Errors.drawn(plain, nn.Linear(2, 2), 1, 0)


def test_moved_maps_and_their_summary() -> None:
    networks = {"plain": network(0), "text": network(0, TextGuided(width=16))}
    found = moved_maps(networks, images(3), errors=20, maps=4)
    assert len(found) == 2 * 4 * 3
    one = found[(found["network"] == "text") & (found["map"] == 2) & (found["image"] == 1)].iloc[0]
    made = network(0, TextGuided(width=16))
    image = images(3)[1:2]
    label, layer = int(made(image).argmax()), "layer3.0.relu2"
    before = ablation_cam(made, layer, image, label)
    Errors.drawn(network(0), made, 20, 2).flip(made)
    if one["finite"]:
        after = ablation_cam(made, layer, image, label)
        assert one["overlap"] == overlap(before, after)  # type: ignore[arg-type]
        assert one["correlation"] == pytest.approx(correlation(before, after), nan_ok=True)  # type: ignore[arg-type]
    assert one["same_class"] == (int(made(image).argmax()) == label)
    lines = summary(found)
    assert lines["network"].tolist() == ["plain", "text"]
    assert lines["maps x images"].tolist() == ["4 x 3"] * 2

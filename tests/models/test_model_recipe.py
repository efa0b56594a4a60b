"""Options of a recipe: schedules against torch's own, sizes, what is refused; smaller images."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from progip.config import build, composed
from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.densenet import DenseNetBC
from progip.models.image_sizes import SmallerImages, resized, scaled
from progip.models.loading import seeded_network
from progip.models.recipe import Recipe
from progip.models.resnet import ResNet

CONF = Path(__file__).parents[2] / "conf"
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.mark.parametrize(
    ("epochs", "steps", "warm_up"), [(14, 391, 0.3), (3, 4, 0.5), (1, 10, 0.2), (2, 3, 0.0)]
)
def test_one_cycle_is_that_of_torch(epochs: int, steps: int, warm_up: float) -> None:
    recipe = Recipe(epochs=epochs, learning_rate=0.2, schedule="one_cycle", warm_up=warm_up)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 0.2, epochs * steps, pct_start=warm_up, anneal_strategy="linear"
    )
    expected = []
    for _ in range(epochs * steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    ours = [recipe.learning_rate_at(e, s, steps) for e in range(epochs) for s in range(steps)]
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert max(ours) <= 0.2


def test_the_other_schedules_change_between_epochs_only() -> None:
    steps = Recipe(epochs=4, learning_rate=0.1, milestones=[2])
    assert [steps.learning_rate_at(1, step, 9) for step in (0, 8)] == [0.1, 0.1]
    cosine = Recipe(epochs=4, learning_rate=0.1, schedule="cosine")
    assert cosine.learning_rate_at(1, 8, 9) == cosine.learning_rate_at(1)


def test_scale_of_each_epoch() -> None:
    recipe = Recipe(epochs=6, scales=[0.5, 0.75, 1.0], scale_milestones=[1, 4])
    assert [recipe.scale_at(e) for e in range(6)] == [0.5, 0.75, 0.75, 0.75, 1, 1]
    assert Recipe().scale_at(199) == 1
    assert [scaled((32, 48), s) for s in (0.5, 0.75, 1.0)] == [(16, 24), (24, 36), (32, 48)]
    assert scaled((1, 3), 0.25) == (1, 1)


def test_resized_means_what_it_shows() -> None:
    """Each pixel of an antialiased half is a weighted mean around it; a ramp stays a ramp."""
    ramp = torch.arange(32.0).expand(2, 3, 32, 32)
    half = resized(ramp, (16, 16))
    inner = torch.arange(1, 15) * 2 + 0.5
    torch.testing.assert_close(half[0, 0, 5, 1:15], inner)
    assert resized(ramp, (32, 32)) is ramp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warm_up": 1.0}, r"recipe\.warm_up must be in \[0, 1\), not 1\.0"),
        ({"precision": "half"}, "recipe.precision must be one of float32, bfloat16, auto"),
        ({"scales": []}, "recipe.scales must be in .0, 1., the last of them 1"),
        ({"scales": [0.5]}, "recipe.scales .* the last of them 1"),
        ({"scales": [0.0, 1.0], "scale_milestones": [3]}, "recipe.scales"),
        ({"scales": [1.5, 1.0], "scale_milestones": [3]}, "recipe.scales"),
        ({"scales": [0.5, 1.0]}, "recipe.scale_milestones .* one fewer than the 2"),
        ({"scale_milestones": [5]}, "recipe.scale_milestones .* one fewer than the 1"),
        ({"scales": [0.5, 0.7, 1.0], "scale_milestones": [5, 5]}, "rising order"),
        ({"scales": [0.5, 1.0], "scale_milestones": [0]}, "positive epochs"),
        ({"scales": [0.5, 1.0], "scale_milestones": [9], "epochs": 9}, "below the 9 recipe.epochs"),
        ({"schedule": "one_cycle", "milestones": [3]}, "no effect with schedule=one_cycle"),
    ],
)
def test_bad_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        Recipe(**options)


def test_files_from_before_the_newer_options_stay_valid() -> None:
    first = {
        "epochs", "batch_size", "learning_rate", "momentum", "nesterov", "weight_decay",
        "schedule", "milestones", "gamma", "label_smoothing", "crop_padding", "flip",
    }  # fmt: skip
    assert set(Recipe().recorded()) == first
    assert set(Recipe(fused=True, decay_norms=False).recorded()) - first == {"fused", "decay_norms"}


@pytest.mark.parametrize("name", MODELS)
def test_command_line_has_every_option_and_both_recipes(name: str) -> None:
    model = [f"model={name}", "dataset=cifar10", "model.channels=3"]
    shown = composed([*model, "model.recipe.fused=true"], CONF, primary="train").model.recipe
    own = composed(model, CONF).model.recipe
    published = build(composed(model, CONF, primary="train").model, Model, "model").recipe
    assert published == build(composed(model, CONF).model, Model, "model").recipe == Recipe(**own)
    assert shown.fused is True
    fast = build(composed([*model, "recipe=fast"], CONF, primary="train").model, Model, "m").recipe
    assert (fast.schedule, fast.precision, fast.scales) == ("one_cycle", "auto", [0.5, 0.75, 1.0])
    assert (fast.fused, fast.channels_last, fast.milestones) == (True, True, [])
    assert (fast.crop_padding, fast.flip) == (published.crop_padding, published.flip)


@pytest.mark.parametrize("name", MODELS)
def test_networks_on_smaller_images(name: str) -> None:
    cfg = composed([f"model={name}", "dataset=cifar10", "model.channels=3"], CONF)
    spec, size = build(cfg.model, Model, "model"), (16, 16) if name == "digits_resnet" else (32, 32)
    network = seeded_network(spec)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    modules = dict(network.named_modules())
    if name == "vgg16_bn":  # five halvings leave nothing of 16 pixels
        with pytest.raises(ProgipError, match=r"'vgg16_bn' .* 16 x 16 pixels.*recipe\.scales"):
            SmallerImages(spec, network, size, [0.5, 1.0])
        return
    sizes = SmallerImages(spec, network, size, [0.5, 0.75, 1.0])
    for scale in (0.5, 0.75, 1.0):
        small = scaled(size, scale)
        with sizes.at(small):
            assert network(torch.randn(2, 3, *small)).shape == (2, 10)
            assert network.state_dict().keys() == before.keys()
            same = {n for n, m in network.named_modules() if m is modules[n]}
            assert modules.keys() - same == (set() if scale == 1 else set(sizes.pools))
    assert dict(network.named_modules()) == modules
    adaptive = ("student", "torchvision", "timm")
    assert sizes.pools == ([] if name in adaptive else ["avgpool"])


@pytest.mark.parametrize("spec", [DenseNetBC(name="densenet"), ResNet(name="resnet", depth=18)])
def test_the_mean_of_the_whole_map_is_what_the_pool_becomes(spec: Model) -> None:
    network = seeded_network(spec).eval()
    sizes = SmallerImages(spec, network, (32, 32), [0.75, 1.0])
    last = network.get_submodule("linear" if isinstance(spec, ResNet) else "fc")
    maps: list[torch.Tensor] = []
    for side in (24, 32):
        images = torch.randn(2, 3, side, side)
        with torch.no_grad(), sizes.at((side, side)):
            hook = network.get_submodule("avgpool").register_forward_pre_hook(
                lambda _, args: maps.append(args[0])
            )
            logits = network(images)
            hook.remove()
        torch.testing.assert_close(logits, last(maps[-1].mean((2, 3))), rtol=1e-4, atol=1e-5)
    assert [tuple(m.shape[2:]) for m in maps] in (
        [(6, 6), (8, 8)],
        [(3, 3), (4, 4)],
    )


def test_images_that_do_not_fit_at_their_own_size_are_named() -> None:
    spec = ResNet(name="resnet18", depth=18)
    network = seeded_network(spec)
    with pytest.raises(ProgipError, match=r"'resnet18' .* 80 x 40 .*; choose another model"):
        SmallerImages(spec, network, (80, 40), [1.0])


def test_the_optimiser_does_what_the_options_say() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    plain, fused = (Recipe(fused=value).new_optimiser(network) for value in (False, True))
    assert (plain.defaults["fused"], fused.defaults["fused"]) == (None, True)
    assert len(plain.param_groups) == 1
    decayed, spared = Recipe(decay_norms=False).new_optimiser(network).param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (1e-4, 0)
    assert len(spared["params"]) == 4

"""Mixing, erasing, averages, schedules and fine-tuning against loops written down once more."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import lr_scheduler
from torchvision.transforms import v2

from progip.config import build, composed
from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models import training
from progip.models.base import Model
from progip.models.digits import DigitsResNet
from progip.models.heads.linear import LinearHead
from progip.models.heads.text_guided import TextGuided
from progip.models.labelled_images import cropped, normalised
from progip.models.loading import seeded, seeded_network
from progip.models.recipe import Recipe
from progip.models.training import Trained, evaluate, train

Stripes = Callable[[int], Images]
MEAN, STD = [0.3], [0.25]
CONF = Path(__file__).parents[2] / "conf"
EVERYTHING: dict[str, Any] = {
    "epochs": 4, "batch_size": 16, "learning_rate": 0.01, "optimiser": "adamw",
    "weight_decay": 0.5, "schedule": "cosine", "warm_up_epochs": 2, "warm_up_factor": 0.1,
    "final_learning_rate": 1e-4, "label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "erase": 0.5,
    "clip_gradient": 0.5, "ema_decay": 0.9, "ema_steps": 2, "crop_padding": 1,
}  # fmt: skip
FINETUNE: dict[str, Any] = {
    "epochs": 3, "batch_size": 16, "start": "weights", "freeze_backbone": True,
    "crop_padding": 0, "flip": False,
}  # fmt: skip


def spec(head: Any = None, weights: Path | None = None, **recipe: Any) -> DigitsResNet:
    return DigitsResNet(
        name="tiny", classes=3, head=head, recipe=Recipe(**recipe),
        weights=None if weights is None else str(weights),
    )  # fmt: skip


def run(model: Model, images: Images, output: Path, **options: Any) -> Trained:
    return train(model, images, options.pop("test", None), MEAN, STD, output=output, **options)


def by_hand(model: Model, images: Images) -> dict[str, torch.Tensor]:
    """All of EVERYTHING, with torch's and torchvision's own parts."""
    network = seeded_network(model)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.5)
    linear = lr_scheduler.LinearLR(optimiser, 0.1, total_iters=2)
    cosine = lr_scheduler.CosineAnnealingLR(optimiser, 2, 1e-4)
    scheduler = lr_scheduler.SequentialLR(optimiser, [linear, cosine], [2])
    mix = v2.RandomChoice([v2.MixUp(alpha=0.8, num_classes=3), v2.CutMix(alpha=1.0, num_classes=3)])
    average = {key: value.clone() for key, value in network.state_dict().items()}
    network.train()
    step = 0
    for epoch in range(4):
        with seeded(f"tiny/0/{epoch}"):
            for chosen in torch.randperm(len(images)).split(16):
                pixels = cropped(torch.from_numpy(images.pixels[chosen.numpy()]), 1)
                mirrored = torch.rand(len(pixels)) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(3)
                batch = normalised(pixels, MEAN, STD)
                batch = torch.stack([v2.RandomErasing(0.5)(image) for image in batch])
                batch, shares = mix(batch, torch.from_numpy(images.labels[chosen.numpy()]))
                smooth = 0.9 * shares + 0.1 / 3
                loss = -(smooth * network(batch).log_softmax(1)).sum(1).mean()
                optimiser.zero_grad()
                loss.backward()
                total = torch.stack([p.grad.square().sum() for p in network.parameters()]).sum()
                for p in network.parameters():
                    p.grad *= min(1.0, 0.5 / (float(total.sqrt()) + 1e-6))
                optimiser.step()
                if step % 2 == 0:
                    for key, value in network.state_dict().items():
                        if step <= 6:  # warming up, and once more: the network itself
                            average[key] = value.clone()
                        elif value.is_floating_point():
                            average[key] = 0.9 * average[key] + 0.1 * value
                step += 1
        scheduler.step()
    return average


def test_everything_at_once_is_the_loop_by_hand(tmp_path: Path, stripes: Stripes) -> None:
    images, model = stripes(48), spec(TextGuided(width=16), **EVERYTHING)
    expected = by_hand(model, images)
    found = load_file(run(model, images, tmp_path / "w.safetensors").path)
    for key, value in expected.items():
        if value.is_floating_point():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)


def test_warming_up_ends_at_the_average(tmp_path: Path, stripes: Stripes) -> None:
    """The average of the last epochs is not the trained network, or the test above sees nothing."""
    images = stripes(48)
    with_average = run(spec(**EVERYTHING), images, tmp_path / "a.safetensors")
    without = run(spec(**EVERYTHING | {"ema_decay": 0.0}), images, tmp_path / "b.safetensors")
    assert with_average.sha256 != without.sha256
    a, b = load_file(with_average.path), load_file(without.path)
    assert not torch.allclose(a["linear.weight"], b["linear.weight"])


@pytest.mark.parametrize(
    "options",
    [
        EVERYTHING,
        EVERYTHING | {"trivial_augment": True, "mixup": 0.0, "schedule": "steps",
                      "warm_up_epochs": 0, "final_learning_rate": 0.0, "every": 2},
    ],
)  # fmt: skip
def test_resumed_training_is_bit_identical(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    images, model = stripes(48), spec(TextGuided(width=16), **options)
    whole = run(model, images, tmp_path / "whole.safetensors")
    assert interrupted_and_resumed(model, images, tmp_path, monkeypatch, 2).sha256 == whole.sha256


def interrupted_and_resumed(
    model: Model, images: Images, folder: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> Trained:
    epoch = training._epoch

    def interrupted(*arguments: Any) -> float:
        if arguments[7] == stop:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(training, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(model, images, folder / "parts.safetensors")
    monkeypatch.setattr(training, "_epoch", epoch)
    return run(model, images, folder / "parts.safetensors")


@pytest.mark.parametrize("epochs", [7, 90])
def test_schedules_are_those_of_torch(epochs: int) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.045)
    step = lr_scheduler.StepLR(optimiser, 1, 0.98)
    every = Recipe(epochs=epochs, learning_rate=0.045, every=1, gamma=0.98)
    for epoch in range(epochs):
        assert every.learning_rate_at(epoch) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        step.step()
    cosine = Recipe(
        epochs=epochs, learning_rate=0.003, schedule="cosine", warm_up_epochs=3,
        final_learning_rate=1e-5,
    )  # fmt: skip
    rates = [cosine.learning_rate_at(epoch) for epoch in range(epochs)]
    assert rates[0] == pytest.approx(0.003 * 0.01)
    assert max(rates) == pytest.approx(0.003) == rates[3]
    assert rates[1] - rates[0] == pytest.approx(rates[2] - rates[1])
    assert all(a > b > 1e-5 for a, b in pairwise(rates[3:]))


@pytest.fixture
def trained(tmp_path: Path, stripes: Stripes) -> Path:
    return run(spec(epochs=2, batch_size=16), stripes(96), tmp_path / "plain.safetensors").path


@pytest.mark.parametrize("head", [LinearHead(), TextGuided(width=16), None])
def test_a_head_alone_on_features_computed_once(
    tmp_path: Path, stripes: Stripes, trained: Path, head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a loop over the whole network in evaluation mode with a frozen backbone."""
    images, test = stripes(48), stripes(30)
    model = spec(head, trained, **FINETUNE)
    done = run(model, images, tmp_path / "w.safetensors", test=test)
    start = load_file(trained)
    network = seeded_network(model).eval()
    network.load_state_dict(
        {k: v for k, v in start.items() if head is None or not k.startswith("linear.")},
        strict=head is None,
    )
    optimiser = torch.optim.SGD(network.linear.parameters(), 0.1, 0.9, weight_decay=1e-4)
    for epoch in range(3):
        with seeded(f"tiny/0/{epoch}"):
            for chosen in torch.randperm(48).split(16):
                batch = normalised(torch.from_numpy(images.pixels[chosen.numpy()]), MEAN, STD)
                labels = torch.from_numpy(images.labels[chosen.numpy()])
                optimiser.zero_grad()
                F.cross_entropy(network(batch), labels).backward()
                optimiser.step()
    found = load_file(done.path)
    assert found.keys() == network.state_dict().keys()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)
        if not key.startswith("linear."):
            assert torch.equal(found[key], start[key])
    assert done.accuracy == evaluate(network, test, MEAN, STD)
    again = interrupted_and_resumed(model, images, tmp_path, monkeypatch, 1)
    assert load_file(again.path).keys() == found.keys()
    assert all(torch.equal(value, found[key]) for key, value in load_file(again.path).items())


def test_the_whole_network_from_weights(tmp_path: Path, stripes: Stripes, trained: Path) -> None:
    images = stripes(48)
    options = {"epochs": 1, "batch_size": 16, "start": "weights", "learning_rate": 1e-3}
    tuned = load_file(run(spec(None, trained, **options), images, tmp_path / "a.safetensors").path)
    start = load_file(trained)
    assert 0 < float((tuned["conv1.weight"] - start["conv1.weight"]).abs().max()) < 0.05


def test_another_start_is_another_training(tmp_path: Path, stripes: Stripes, trained: Path) -> None:
    images, output = stripes(48), tmp_path / "w.safetensors"
    first = run(spec(LinearHead(), trained, **FINETUNE), images, output)
    moved = tmp_path / "moved.safetensors"
    save_file(load_file(trained), moved)
    assert run(spec(LinearHead(), moved, **FINETUNE), images, output) == first
    start = load_file(trained)
    save_file({**start, "conv1.weight": start["conv1.weight"] * 2}, moved)
    with pytest.raises(ProgipError, match="start: "):
        run(spec(LinearHead(), moved, **FINETUNE), images, output)
    with pytest.raises(ProgipError, match=r"model\.head|other settings"):
        run(spec(TextGuided(width=16), trained, **FINETUNE), images, output)
    save_file({k: v for k, v in start.items() if not k.startswith("layer1.")}, moved)
    with pytest.raises(ProgipError, match="does not fit model 'tiny'"):
        run(spec(LinearHead(), moved, **FINETUNE), images, tmp_path / "x.safetensors")
    with pytest.raises(ProgipError, match="has no weights"):
        run(spec(LinearHead(), None, **FINETUNE), images, tmp_path / "y.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimiser": "adam"}, "one of sgd, adamw"),
        ({"every": 2, "milestones": [1]}, r"recipe\.every=2 has an effect only .* without miles"),
        ({"warm_up_epochs": 2}, "only with schedule=cosine"),
        ({"schedule": "cosine", "warm_up_epochs": 200}, r"warm_up_epochs must be in \[0, "),
        ({"schedule": "cosine", "final_learning_rate": 1.0}, "final_learning_rate"),
        ({"mixup": -1.0}, "mixup must be 0 or more"),
        ({"erase": 1.5}, "erase"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"ema_steps": 0}, "ema_steps"),
        ({"start": "zero"}, "one of scratch, weights"),
        ({"freeze_backbone": True}, "untrained backbone"),
        ({**FINETUNE, "flip": True}, r"flip=True has an effect only where images change"),
        ({**FINETUNE, "cutmix": 1.0}, r"cutmix=1\.0 has an effect only where images change"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        Recipe(**options)


@pytest.mark.parametrize("name", ["steps30", "steps1", "mixed", "finetune"])
@pytest.mark.parametrize("model", ["resnet20", "densenet_bc_100_12", "resnet34", "vgg16_bn"])
def test_recipes_fit_every_model(name: str, model: str) -> None:
    given = [f"model={model}", "dataset=cifar10", f"recipe={name}", "model.head=text_guided"]
    made = build(composed(given, CONF, primary="train").model, Model, "model")
    assert made.recipe.momentum == 0.9
    assert (made.recipe.mixup > 0) == (name == "mixed")
    assert made.recipe.freeze_backbone == (name == "finetune")

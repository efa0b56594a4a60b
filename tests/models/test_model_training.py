"""Training: learns, resumes bit for bit, says how its weights were made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models import training
from progip.models.base import Model, Recipe
from progip.models.digits import DigitsResNet
from progip.models.labelled_images import cropped
from progip.models.loading import load_network
from progip.models.training import Trained, evaluate, train

Stripes = Callable[[int], Images]
NORMALISATION = ([0.3], [0.25])


def spec(**recipe: Any) -> DigitsResNet:
    options = {"epochs": 3, "batch_size": 16, "milestones": [1, 2], "crop_padding": 1} | recipe
    return DigitsResNet(name="tiny", classes=3, recipe=Recipe(**options))


def run(model: Model, images: Images, output: Path, **options: Any) -> Trained:
    return train(model, images, options.pop("test", None), *NORMALISATION, output=output, **options)


def weights(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as content:
        return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"epochs": 6, "schedule": "cosine", "milestones": [], "nesterov": True},
    ],
)
def test_learns_and_the_file_says_how(tmp_path: Path, stripes: Stripes, recipe: Any) -> None:
    images = stripes(96)
    before = torch.random.get_rng_state()
    model = spec(**recipe)
    trained = run(model, images, tmp_path / "w.safetensors", test=stripes(30))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert trained.accuracy is not None
    assert trained.accuracy > 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    with safe_open(trained.path, framework="pt") as content:
        made = json.loads(content.metadata()["progip"])
    assert made["recipe"]["epochs"] == model.recipe.epochs
    assert made["data"]["fingerprint"] == images.fingerprint()
    assert made["accuracy"] == trained.accuracy
    assert made["torch"] == torch.__version__
    model.weights, model.sha256 = str(trained.path), trained.sha256
    network = load_network(model, image_shape=(1, 16, 16))
    assert evaluate(network, stripes(30), *NORMALISATION) == trained.accuracy


def test_resumed_training_is_bit_identical(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, test = stripes(50), stripes(30)
    whole = run(spec(), images, tmp_path / "whole.safetensors", test=test)
    epoch = training._epoch
    for interrupted_in in (1, 2):

        def interrupted(*arguments: Any, stop: int = interrupted_in) -> float:
            if arguments[7] == stop:
                raise KeyboardInterrupt
            return epoch(*arguments)

        monkeypatch.setattr(training, "_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec(), images, tmp_path / "parts.safetensors", test=test)
    assert (tmp_path / "parts.checkpoint.pt").exists()
    monkeypatch.setattr(training, "_epoch", epoch)
    parts = run(spec(), images, tmp_path / "parts.safetensors", test=test)
    assert parts.accuracy == whole.accuracy
    assert parts.sha256 == whole.sha256  # the whole file, metadata too
    assert same(parts.path, whole.path)


def test_killed_between_the_last_checkpoint_and_the_output(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, test = stripes(32), stripes(30)
    whole = run(spec(), images, tmp_path / "whole.safetensors", test=test)
    finish = training.Run.finish

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run(spec(), images, tmp_path / "parts.safetensors", test=test)
    monkeypatch.setattr(training.Run, "finish", finish)
    assert run(spec(), images, tmp_path / "parts.safetensors", test=test).sha256 == whole.sha256


def test_weights_depend_on_seed_and_recipe_not_on_the_global_generator(
    tmp_path: Path, stripes: Stripes
) -> None:
    images = stripes(32)
    first = run(spec(), images, tmp_path / "a.safetensors").path
    torch.manual_seed(99)
    assert same(first, run(spec(), images, tmp_path / "b.safetensors").path)
    assert not same(first, run(spec(), images, tmp_path / "c.safetensors", seed=1).path)
    assert not same(first, run(spec(flip=False), images, tmp_path / "d.safetensors").path)
    smoothed = spec(label_smoothing=0.1)
    assert not same(first, run(smoothed, images, tmp_path / "f.safetensors").path)
    assert not same(first, run(spec(crop_padding=0), images, tmp_path / "e.safetensors").path)


def test_finished_training_is_not_done_again(tmp_path: Path, stripes: Stripes) -> None:
    images, output = stripes(32), tmp_path / "w.safetensors"
    first = run(spec(), images, output)
    written = output.stat().st_mtime_ns
    assert run(spec(), images, output) == first
    assert output.stat().st_mtime_ns == written
    with pytest.raises(ProgipError, match=r"other settings \(recipe\.gamma: 0\.1 there, 0\.5 now"):
        run(spec(gamma=0.5), images, output)
    with pytest.raises(ProgipError, match=r"data\.fingerprint"):
        run(spec(), stripes(33), output)
    assert output.stat().st_mtime_ns == written
    run(spec(gamma=0.5), images, output, resume=False)
    assert output.stat().st_mtime_ns != written


def test_crops_are_windows_of_the_padded_image() -> None:
    pixels = torch.arange(1, 2 * 3 * 16 + 1, dtype=torch.uint8).view(2, 3, 4, 4)
    padded = torch.nn.functional.pad(pixels, (2, 2, 2, 2))
    found = set()
    for _ in range(60):
        for image, window in zip(cropped(pixels, 2), padded, strict=True):
            where = [
                (y, x)
                for y in range(5)
                for x in range(5)
                if torch.equal(window[:, y : y + 4, x : x + 4], image)
            ]
            assert len(where) == 1
            found |= set(where)
    assert len(found) > 20


def test_steps_and_cosine() -> None:
    steps = Recipe(epochs=164, learning_rate=0.1, milestones=[82, 123], gamma=0.1)
    rates = [steps.learning_rate_at(e) for e in (0, 81, 82, 122, 123, 163)]
    assert np.allclose(rates, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    cosine = Recipe(epochs=10, learning_rate=0.2, schedule="cosine")
    assert np.allclose([cosine.learning_rate_at(e) for e in (0, 5, 10)], [0.2, 0.1, 0])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"schedule": "linear"}, "one of steps, cosine"),
        ({"milestones": [20, 10]}, "rising order"),
        ({"schedule": "cosine", "milestones": [5]}, "no effect"),
        ({"gamma": 0.0}, "gamma"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"crop_padding": -1}, "crop_padding"),
    ],
)
def test_bad_recipe_is_named(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgipError, match=message):
        Recipe(**recipe)


def test_bad_input(tmp_path: Path, stripes: Stripes) -> None:
    images, output = stripes(32), tmp_path / "w.safetensors"
    with pytest.raises(ProgipError, match="no training images"):
        run(spec(), images.take(np.arange(0)), output)
    with pytest.raises(ProgipError, match="no test images"):
        run(spec(), images, output, test=images.take(np.arange(0)))
    with pytest.raises(ProgipError, match="from 0 to 2, but model 'tiny' has 2 classes"):
        run(DigitsResNet(name="tiny", classes=2), images, output)
    with pytest.raises(ProgipError, match="takes 3 channels"):
        run(DigitsResNet(name="tiny", channels=3), images, output)
    with pytest.raises(ProgipError, match=r"written as \.safetensors"):
        run(spec(), images, tmp_path / "w.pth")
    (tmp_path / "file").touch()
    with pytest.raises(ProgipError, match="cannot write trained weights"):
        run(spec(), images, tmp_path / "file" / "w.safetensors")
    with pytest.raises(ProgipError, match="diverged in epoch 1"):
        run(spec(learning_rate=1e30), images, output)
    assert not output.exists()
    output.write_bytes(b"nothing of ours")
    with pytest.raises(ProgipError, match="does not say how it was made"):
        run(spec(), images, output)
    output.unlink()
    output.with_suffix(".checkpoint.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(ProgipError, match="is damaged; delete it"):
        run(spec(), images, output)

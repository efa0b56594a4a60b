"""Training beside the published way: growing images, one cycle, bfloat16; resuming it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models import batches, training
from progip.models.base import Model, Recipe
from progip.models.digits import DigitsResNet
from progip.models.labelled_images import cropped, normalised
from progip.models.loading import seeded, seeded_network
from progip.models.training import Trained, evaluate, train

Stripes = Callable[[int], Images]
MEAN, STD = [0.3], [0.25]
FAST = {
    "epochs": 3, "batch_size": 16, "learning_rate": 0.1, "nesterov": True, "weight_decay": 5e-4,
    "schedule": "one_cycle", "label_smoothing": 0.1, "crop_padding": 1, "precision": "bfloat16",
    "scales": [0.5, 0.75, 1.0], "scale_milestones": [1, 2], "channels_last": True, "fused": True,
}  # fmt: skip


@dataclass
class Seen:
    """One forward pass: in training or not, the images' side, memory format and type computed."""

    training: bool
    side: int
    channels_last: bool
    computed_in: torch.dtype


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Seen]:
    """What the first convolution of a network in training sees."""
    passes: list[Seen] = []

    def note(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        last = output.is_contiguous(memory_format=torch.channels_last)
        passes.append(Seen(module.training, args[0].shape[3], last, output.dtype))

    def watched(model: Model, seed: int) -> tuple[nn.Module, str]:
        network = seeded_network(model, seed)
        network.get_submodule("conv1").register_forward_hook(note)
        return network, ""

    monkeypatch.setattr(training, "network_and_head", watched)
    return passes


def spec(**recipe: Any) -> DigitsResNet:
    return DigitsResNet(name="tiny", classes=3, recipe=Recipe(**(FAST | recipe)))


def run(model: Model, images: Images, output: Path, **options: Any) -> Trained:
    return train(model, images, options.pop("test", None), MEAN, STD, output=output, **options)


def recorded(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as content:
        return json.loads(content.metadata()["progip"])["recipe"]


def plain_loop(model: Model, images: Images, sides: list[int]) -> dict[str, torch.Tensor]:
    """A training written down once more, with torch's own schedulers, in float32.

    Shares with ``train`` only initial weights, random numbers, crops and normalisation.
    """
    recipe, network = model.recipe, seeded_network(model, 0)
    parts = dict(network.named_children())
    vectors = [p for p in network.parameters() if p.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": [p for p in network.parameters() if p.ndim > 1]}]
    groups.append({"params": vectors} | ({} if recipe.decay_norms else {"weight_decay": 0.0}))
    optimiser = torch.optim.SGD(
        groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )  # fmt: skip
    one_cycle = recipe.schedule == "one_cycle"
    scheduler: Any = torch.optim.lr_scheduler.MultiStepLR(optimiser, recipe.milestones, 0.1)
    if one_cycle:
        steps = recipe.epochs * -(-len(images) // recipe.batch_size)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, recipe.learning_rate, steps, pct_start=recipe.warm_up,
            anneal_strategy="linear", cycle_momentum=False,
        )  # fmt: skip
    network.train()
    for epoch, side in enumerate(sides):
        with seeded(f"tiny/0/{epoch}"):
            for chosen in torch.randperm(len(images)).split(recipe.batch_size):
                pixels = cropped(torch.from_numpy(images.pixels[chosen.numpy()]), 1)
                mirrored = torch.rand(len(pixels)) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(3)
                batch = normalised(pixels, MEAN, STD)
                if side != batch.shape[3]:
                    batch = F.interpolate(batch, (side, side), mode="bilinear", antialias=True)
                out = parts["relu"](parts["bn1"](parts["conv1"](batch)))
                for stage in ("layer1", "layer2", "layer3"):
                    out = parts[stage](out)
                logits = parts["linear"](out.mean((2, 3)))
                labels = torch.from_numpy(images.labels[chosen.numpy()])
                loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                if one_cycle:
                    scheduler.step()
        if not one_cycle:
            scheduler.step()
    return network.state_dict()


PLAIN = {"precision": "float32", "channels_last": False, "weight_decay": 0.05}


@pytest.mark.parametrize(
    ("model", "sides"),
    [
        (spec(**PLAIN), [8, 12, 16]),
        (spec(**PLAIN, fused=False, decay_norms=False), [8, 12, 16]),
        (
            DigitsResNet(
                name="tiny",
                classes=3,
                recipe=Recipe(epochs=3, batch_size=16, milestones=[1, 2], crop_padding=1),
            ),
            [16, 16, 16],
        ),
    ],
    ids=["fast", "fast, norms not decayed", "published"],
)
def test_is_the_plain_loop(
    tmp_path: Path, stripes: Stripes, model: Model, sides: list[int]
) -> None:
    trained = load_file(run(model, stripes(40), tmp_path / "w.safetensors").path)
    expected = plain_loop(model, stripes(40), sides)
    assert trained.keys() == expected.keys()
    for key, value in expected.items():  # sums of another order differ in their last bits
        torch.testing.assert_close(trained[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "channels_last"), [("bfloat16", True), ("float32", True), ("float32", False)]
)
def test_sizes_precision_and_memory_format(
    tmp_path: Path, stripes: Stripes, seen: list[Seen], precision: str, channels_last: bool
) -> None:
    model = spec(precision=precision, channels_last=channels_last, epochs=12)
    trained = run(model, stripes(64), tmp_path / "w.safetensors", test=stripes(30))
    steps = [one for one in seen if one.training]
    assert [one.side for one in steps] == [8] * 4 + [12] * 4 + [16] * 40
    assert {one.computed_in for one in steps} == {getattr(torch, precision)}
    assert {one.channels_last for one in steps} == {channels_last}
    accuracies = [one for one in seen if not one.training][-12:]  # of each epoch as it was trained
    assert [one.side for one in accuracies] == [8, 12] + [16] * 10
    assert {one.computed_in for one in accuracies[:-1]} == {getattr(torch, precision)}
    assert accuracies[-1].computed_in == torch.float32  # the finished network's, as campaigns do
    state = load_file(trained.path)
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    network = seeded_network(model)
    network.load_state_dict(state)
    assert evaluate(network, stripes(30), MEAN, STD) == trained.accuracy
    assert trained.accuracy is not None
    assert trained.accuracy > 0.9


def test_resumed_training_is_bit_identical(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in each stage, in the middle of an epoch: after the third batch."""
    images, test = stripes(50), stripes(30)
    whole = run(spec(), images, tmp_path / "whole.safetensors", test=test)
    crop = batches.cropped
    for steps in (7, 3, 3):
        left = [steps]

        def interrupted(*arguments: Any, left: list[int] = left) -> torch.Tensor:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return crop(*arguments)

        monkeypatch.setattr(batches, "cropped", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(spec(), images, tmp_path / "parts.safetensors", test=test)
    monkeypatch.setattr(batches, "cropped", crop)
    parts = run(spec(), images, tmp_path / "parts.safetensors", test=test)
    assert parts.accuracy == whole.accuracy
    assert parts.sha256 == whole.sha256  # the whole file, metadata too


def test_settings_say_the_recipe(tmp_path: Path, stripes: Stripes) -> None:
    images, output = stripes(32), tmp_path / "w.safetensors"
    run(spec(), images, output)
    assert recorded(output).items() >= (FAST | {"momentum": 0.9, "flip": True}).items()
    for option, value, message in (
        ("scale_milestones", [1, 2], r"recipe\.scale_milestones: \[1, 2\] there, \[\] now"),
        ("channels_last", True, r"recipe\.channels_last: True there, False now"),
        ("fused", True, r"recipe\.fused: True there, False now"),
        ("precision", "bfloat16", r"recipe\.precision: bfloat16 there, float32 now"),
    ):
        assert recorded(output)[option] == value
        plain = {"scale_milestones": [], "scales": [1.0], "precision": "float32"}
        with pytest.raises(ProgipError, match=message):
            run(spec(fused=False, channels_last=False, **plain), images, output)


def test_auto_is_settled_first_and_recorded(
    tmp_path: Path, stripes: Stripes, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, output = stripes(32), tmp_path / "w.safetensors"
    auto = spec(precision="auto")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": True})
    run(auto, images, output)
    assert recorded(output)["precision"] == "bfloat16"
    assert auto.recipe.precision == "auto"  # the caller's is left alone
    assert run(spec(), images, output).path == output  # the same settings: nothing to do
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False})
    with pytest.raises(ProgipError, match=r"recipe\.precision: bfloat16 there, float32 now"):
        run(auto, images, output)
    run(auto, images, output, resume=False)
    assert run(spec(precision="float32"), images, output).path == output

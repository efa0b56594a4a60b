"""Trains a network by its recipe: one command, resumable, the same weights each time."""

import copy
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from progip.devices import usable_device
from progip.errors import ProgipError
from progip.models.averaging import Average
from progip.models.base import Model
from progip.models.batches import Batches, FeatureBatches, PixelBatches
from progip.models.heads.base import classifier_name
from progip.models.image_sizes import SmallerImages, resized, scaled
from progip.models.labelled_images import LabelledImages, check, normalised
from progip.models.loading import (
    network_and_head,
    put_start,
    seeded,
    weights_fingerprint,
)
from progip.models.training_files import Run, Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        path: the ``.safetensors`` file with the state dict and, as metadata, how it was made.
        sha256: of that file.
        accuracy: on the test images, in [0, 1]; None without test images.
    """

    path: Path
    sha256: str
    accuracy: float | None


def train(
    spec: Model,
    images: LabelledImages,
    test: LabelledImages | None,
    mean: list[float],
    std: list[float],
    *,
    output: Path,
    resume: bool = True,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Trained:
    """Train a model by ``spec.recipe`` and write its weights to ``output``.

    From scratch, or from ``spec.weights`` (``recipe.start``). With ``recipe.freeze_backbone`` the
    last layer or head alone is trained, on the features that the rest of the network, in evaluation
    mode, gives of each image: computed once, and once more where a training is continued.

    A checkpoint is written
    beside ``output`` after every epoch; the same command continues from it, and the weights are
    those of a training that was never interrupted, bit for bit. A finished ``output`` of the same
    settings is returned at once.

    What is reproducible: on a CPU the weights depend on the settings and the seed alone, for one
    build of PyTorch, one number of threads and, with ``precision: bfloat16`` above all, one kind
    of processor: AMX, AVX-512 and ARM add bfloat16 products in different orders, and the
    difference grows over a training. On CUDA sums may differ in the last bit even on one GPU.
    ``precision: auto`` is settled before anything else and recorded as what it became, so a
    training is not continued in another precision unnoticed.

    Args:
        spec: the model; its ``weights`` are ignored where it starts from scratch.
        images, test: uint8 pixels (n, channels, h, w) and labels (n,). The test images only
            measure the accuracy of each epoch, as that epoch was trained: at its size and in its
            precision; nothing is chosen by it. The last one is of the finished network as
            campaigns use it, at full size in float32.
        mean, std: per-channel normalisation in [0, 1] pixel units.
        output: a file that ends in ``.safetensors``.
        resume: False starts anew and replaces what an earlier training left.
        seed: of initial weights, order, crops, flips and dropout.

    Raises:
        ProgipError: where the images do not fit the model, ``output`` cannot be written or was
            made with other settings, or the loss becomes NaN or infinite.
    """
    place = usable_device(device)
    for name, part in (("training", images), ("test", test)):
        if part is not None:
            check(spec, part, name, len(mean), len(std))
    spec = copy.copy(spec)
    recipe = spec.recipe = spec.recipe.on(place)
    network, head = network_and_head(spec, seed)
    if recipe.start == "weights":
        put_start(network, spec, head)
    # what embeddings and weight files hold, not where they lie
    start = weights_fingerprint(network) if head or recipe.start == "weights" else None
    settings = Settings.of(spec, images.fingerprint(), mean, std, seed, start)
    run = Run(Path(output), settings)
    run.prepare(resume)
    if (done := run.finished()) is not None:
        log.info("%s is already trained with these settings", run.output)
        return Trained(run.output, *done)

    network = network.to(place)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    full_size = images.pixels.shape[2:]
    sizes = SmallerImages(spec, network, full_size, recipe.scales)
    normalisation = (mean, std)
    learner: nn.Module = network
    batches: Batches
    features: FeatureBatches | None = None  # of the test images
    if recipe.freeze_backbone:
        learner = network.get_submodule(
            head or classifier_name(network, spec.classes, spec.feature_layer)
        )
        batches = FeatureBatches(network, learner, images, normalisation, place)
        if test is not None:
            features = FeatureBatches(network, learner, test, normalisation, place)
    else:
        batches = PixelBatches(recipe, images, normalisation, spec.classes, place)
    optimiser, average = recipe.new_optimiser(learner), Average(recipe, learner)
    first_epoch = run.restore(learner, optimiser, average, place)
    each = -(-len(batches) // recipe.batch_size)
    steps = {"total": recipe.epochs * each, "initial": first_epoch * each}
    with tqdm(desc=spec.name, unit="batch", disable=None, leave=False, **steps) as bar:
        for epoch in range(first_epoch, recipe.epochs):
            started = time.perf_counter()
            size = scaled(full_size, recipe.scale_at(epoch))
            with sizes.at(size):
                loss = _epoch(
                    learner, optimiser, average, spec, batches, size, seed, epoch, place, bar
                )
                seconds = time.perf_counter() - started
                run.checkpoint(learner, optimiser, average, epoch + 1)
                accuracy = None
                if features is not None:
                    accuracy = features.accuracy(learner)
                elif test is not None and epoch + 1 < recipe.epochs:
                    with recipe.autocast(place):
                        accuracy = evaluate(network, test, mean, std, device=place, size=size)
            log.info(
                "epoch %d of %d, %d x %d pixels: loss %.4f%s, learning rate %.3g, "
                "%.1f s, %.0f images/s",
                epoch + 1,
                recipe.epochs,
                *size,
                loss,
                "" if accuracy is None else f", test accuracy {accuracy:.2%}",
                optimiser.param_groups[0]["lr"],
                seconds,
                len(images.pixels) / seconds,
            )
    average.finish(learner)
    accuracy = None if test is None else evaluate(network, test, mean, std, device=place)
    sha256 = run.finish(network, accuracy)
    shown = "" if accuracy is None else f", test accuracy {accuracy:.2%}"
    log.info("wrote %s, sha256 %s%s", run.output, sha256, shown)
    return Trained(run.output, sha256, accuracy)


@torch.no_grad()
def evaluate(
    network: nn.Module,
    images: LabelledImages,
    mean: list[float],
    std: list[float],
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    size: tuple[int, int] | None = None,
) -> float:
    """Share of the images, in [0, 1], whose largest logit is their label's.

    Leaves the network in evaluation mode.

    Args:
        size: resize the images to this height and width; None: as they are.
    """
    network.eval()
    correct = 0
    for start in range(0, len(images.pixels), batch_size):
        pixels = torch.from_numpy(images.pixels[start : start + batch_size])
        labels = torch.from_numpy(images.labels[start : start + batch_size]).to(device)
        batch = normalised(pixels, mean, std).to(device)
        logits = network(batch if size is None else resized(batch, size))
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(images.pixels)


def _epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Average,
    spec: Model,
    examples: Batches,
    size: tuple[int, int],
    seed: int,
    epoch: int,
    device: torch.device,
    bar: tqdm,
) -> float:
    """One pass over the training examples; the mean loss.

    Its random numbers are keyed by (seed, epoch), so a resumed training needs no generator state.
    """
    recipe = spec.recipe
    network.train()
    total = torch.zeros((), device=device)
    with seeded(f"{spec.name}/{seed}/{epoch}", device):
        order = torch.randperm(len(examples))
        batches = order.split(recipe.batch_size)
        for step, chosen in enumerate(batches):
            bar.update()
            if len(chosen) == 1 < len(order):  # batch normalisation cannot train on one image
                continue
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate_at(epoch, step, len(batches))
            batch, targets = examples.take(chosen, size)
            with recipe.autocast(device):
                logits = network(batch).float()
            loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            if recipe.clip_gradient:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_gradient)
            optimiser.step()
            average.update(network, epoch, step, len(batches))
            total += loss.detach() * len(chosen)
    mean_loss = float(total) / len(order)
    if not np.isfinite(mean_loss):
        raise ProgipError(
            f"the training of '{spec.name}' diverged in epoch {epoch + 1} (loss {mean_loss}); "
            f"lower recipe.learning_rate, now {recipe.learning_rate}"
        )
    return mean_loss

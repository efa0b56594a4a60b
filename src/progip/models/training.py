"""Trains a network by its published recipe: one command, resumable, the same weights each time."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from progip.errors import ProgipError
from progip.models.base import Model
from progip.models.labelled_images import LabelledImages, check, cropped, normalised
from progip.models.loading import seeded, seeded_network, usable_device
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
    """Train a model from scratch by ``spec.recipe`` and write its weights to ``output``.

    Stochastic gradient descent with momentum (He et al., CVPR 2016). A checkpoint is written
    beside ``output`` after every epoch; the same command continues from it, and the weights are
    those of a training that was never interrupted, bit for bit. A finished ``output`` of the same
    settings is returned at once. On a CPU the weights depend on the settings and the seed alone
    (for one build of PyTorch and one number of threads); on CUDA sums may differ in the last bit.

    Args:
        spec: the model; its ``weights`` are ignored.
        images, test: uint8 pixels (n, channels, h, w) and labels (n,). The test images only
            measure the accuracy of each epoch; nothing is chosen by it.
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
    settings = Settings.of(spec, images.fingerprint(), mean, std, seed)
    run = Run(Path(output), settings)
    run.prepare(resume)
    if (done := run.finished()) is not None:
        log.info("%s is already trained with these settings", run.output)
        return Trained(run.output, *done)

    network = seeded_network(spec, seed).to(place)
    recipe = spec.recipe
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
    first_epoch = run.restore(network, optimiser, place)
    batches = -(-len(images.pixels) // recipe.batch_size)
    accuracy = None
    steps = {"total": recipe.epochs * batches, "initial": first_epoch * batches}
    with tqdm(desc=spec.name, unit="batch", disable=None, leave=False, **steps) as bar:
        for epoch in range(first_epoch, recipe.epochs):
            started = time.perf_counter()
            loss = _epoch(network, optimiser, spec, images, (mean, std), seed, epoch, place, bar)
            accuracy = None if test is None else evaluate(network, test, mean, std, device=place)
            log.info(
                "epoch %d of %d: loss %.4f%s, learning rate %.3g, %.1f s",
                epoch + 1,
                recipe.epochs,
                loss,
                "" if accuracy is None else f", test accuracy {accuracy:.2%}",
                recipe.learning_rate_at(epoch),
                time.perf_counter() - started,
            )
            run.checkpoint(network, optimiser, epoch + 1)
    if first_epoch == recipe.epochs and test is not None:  # stopped between checkpoint and output
        accuracy = evaluate(network, test, mean, std, device=place)
    sha256 = run.finish(network, accuracy)
    log.info("wrote %s, sha256 %s", run.output, sha256)
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
) -> float:
    """Share of the images, in [0, 1], whose largest logit is their label's.

    Leaves the network in evaluation mode.
    """
    network.eval()
    correct = 0
    for start in range(0, len(images.pixels), batch_size):
        pixels = torch.from_numpy(images.pixels[start : start + batch_size])
        labels = torch.from_numpy(images.labels[start : start + batch_size]).to(device)
        logits = network(normalised(pixels, mean, std).to(device))
        correct += int((logits.argmax(1) == labels).sum())
    return correct / len(images.pixels)


def _epoch(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    spec: Model,
    images: LabelledImages,
    normalisation: tuple[list[float], list[float]],
    seed: int,
    epoch: int,
    device: torch.device,
    bar: tqdm,
) -> float:
    """One pass over the training images; the mean loss.

    Its random numbers are keyed by (seed, epoch), so a resumed training needs no generator state.
    """
    recipe = spec.recipe
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate_at(epoch)
    network.train()
    total = torch.zeros((), device=device)
    with seeded(f"{spec.name}/{seed}/{epoch}", device):
        order = torch.randperm(len(images.pixels))
        for chosen in order.split(recipe.batch_size):
            bar.update()
            if len(chosen) == 1 < len(order):  # batch normalisation cannot train on one image
                continue
            pixels = torch.from_numpy(images.pixels[chosen.numpy()])
            labels = torch.from_numpy(images.labels[chosen.numpy()]).to(device)
            if recipe.crop_padding:
                pixels = cropped(pixels, recipe.crop_padding)
            if recipe.flip:
                mirrored = (torch.rand(len(pixels)) < 0.5).view(-1, 1, 1, 1)
                pixels = torch.where(mirrored, pixels.flip(3), pixels)
            logits = network(normalised(pixels, *normalisation).to(device))
            loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(chosen)
    mean_loss = float(total) / len(order)
    if not np.isfinite(mean_loss):
        raise ProgipError(
            f"the training of '{spec.name}' diverged in epoch {epoch + 1} (loss {mean_loss}); "
            f"lower recipe.learning_rate, now {recipe.learning_rate}"
        )
    return mean_loss

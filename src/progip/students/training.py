"""Trains teacher and stages one after the other; every stage is a resumable run of its own."""

import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from progip.attacks.base import PixelNetwork
from progip.datasets.base import Images
from progip.devices import usable_device
from progip.errors import ProgipError
from progip.models.averaging import Average
from progip.models.base import Model
from progip.models.batches import PixelBatches
from progip.models.dynamic.network import DynamicNetwork, sort_hidden
from progip.models.loading import load_network, seeded, weights_fingerprint
from progip.models.recipe import Recipe
from progip.models.training_files import Run, Settings
from progip.students.procedures import Procedure
from progip.students.stages import Stage, Training

log = logging.getLogger(__name__)
RAW = [0.0], [1.0]  # the mean and std of batches that stay in [0, 1]


@dataclass
class Trainer:
    """Goes through the teacher and the stages of a training.

    The weights depend on settings, images and seed alone, as those of ``progip.models.training``,
    and not on interruptions: the same call goes on with the last finished epoch.

    Attributes:
        training: space, procedure, stages.
        images: for training.
        mean, std: what networks normalise pixels with.
        folder: a file for each stage, ``0_teacher.safetensors`` first, with its checkpoint beside
            it until it is finished.
        device, seed: as they are called.
        own: the model that teaches, where ``training.teacher.source`` is ``model``.
    """

    training: Training
    images: Images
    mean: list[float]
    std: list[float]
    folder: Path
    classes: int
    device: torch.device | str = "cpu"
    seed: int = 0
    own: Model | None = None

    def __post_init__(self) -> None:
        self.place = usable_device(self.device)
        self.channels = int(self.images.pixels.shape[1])

    def train(self, resume: bool = True) -> DynamicNetwork:
        """The trained dynamic network, on the CPU; ``resume=False`` begins anew.

        Raises:
            ProgipError: a file was made with other settings, cannot be written, or a loss became
                NaN or infinite.
        """
        network, pixels = self._new()
        teacher: nn.Module | None = None
        if self.training.teacher.source == "largest":
            teacher = self.teacher(resume)
            if self.training.start == "teacher":
                network.load_state_dict(teacher.network.state_dict())  # type: ignore[union-attr]
        elif self.training.procedure.distils:
            assert self.own is not None
            model = load_network(self.own, self.place, image_shape=self.images.pixels.shape[1:])
            teacher = PixelNetwork(model, self.mean, self.std).to(self.place)
        for number, stage in enumerate(self.training.planned, 1):
            if stage.sort:
                sort_hidden(network)
            self._stage(
                number, stage, self.training.recipe(stage), self.training.procedure,
                pixels, teacher, resume,
            )  # fmt: skip
        return network.cpu().eval()

    def teacher(self, resume: bool = True) -> nn.Module:
        """The largest network by TRADES, in evaluation mode, from pixels in [0, 1]."""
        _, pixels = self._new()
        wanted = self.training.teacher
        stage = Stage(name="teacher", epochs=wanted.epochs, learning_rate=wanted.learning_rate)
        recipe = self.training.teachers_recipe()
        self._stage(0, stage, recipe, wanted.procedure, pixels, None, resume)
        return pixels.eval().requires_grad_(False)

    def _new(self) -> tuple[DynamicNetwork, nn.Module]:
        """A dynamic network of initial weights, alone and from pixels in [0, 1]."""
        with seeded(f"{self.training.name}/{self.seed}"):
            network = DynamicNetwork(self.training.space, self.classes, self.channels)
        return network, PixelNetwork(network, self.mean, self.std).to(self.place)

    def _stage(
        self,
        number: int,
        stage: Stage,
        recipe: Recipe,
        procedure: Procedure,
        pixels: nn.Module,
        teacher: nn.Module | None,
        resume: bool,
    ) -> None:
        """Train one stage, or put in what it left; ``pixels`` is changed in place."""
        network = pixels.network
        assert isinstance(network, DynamicNetwork)
        settings = self._settings(stage, recipe, procedure, network, teacher)
        run = Run(self.folder / f"{number}_{stage.name}.safetensors", settings)
        run.prepare(resume)
        if run.finished() is not None:
            network.load_state_dict(load_file(run.output))
            return
        batches = PixelBatches(recipe, self.images, RAW, self.classes, self.place)
        optimiser, average = recipe.new_optimiser(network), Average(recipe, network)
        for epoch in range(run.restore(network, optimiser, average, self.place), recipe.epochs):
            begun = time.perf_counter()
            loss = self._epoch(stage, recipe, procedure, pixels, teacher, batches, optimiser, epoch)
            run.checkpoint(network, optimiser, average, epoch + 1)
            seconds = time.perf_counter() - begun
            log.info(
                "%s: epoch %d of %d, loss %.4f, %.1f s",
                stage.name, epoch + 1, recipe.epochs, loss, seconds,
            )  # fmt: skip
        network.active = None
        run.finish(network, None)

    def _epoch(
        self,
        stage: Stage,
        recipe: Recipe,
        procedure: Procedure,
        pixels: nn.Module,
        teacher: nn.Module | None,
        batches: PixelBatches,
        optimiser: torch.optim.Optimizer,
        epoch: int,
    ) -> float:
        network, space = pixels.network, self.training.space
        assert isinstance(network, DynamicNetwork)
        pixels.train()
        total, count = 0.0, 0
        with seeded(f"{self.training.name}/{stage.name}/{self.seed}/{epoch}", self.place):
            steps = torch.randperm(len(batches)).split(recipe.batch_size)
            for step, chosen in enumerate(steps):
                if len(chosen) == 1 < len(batches):  # batch normalisation needs more than one
                    continue
                for group in optimiser.param_groups:
                    group["lr"] = recipe.learning_rate_at(epoch, step, len(steps))
                x, y = batches.take(chosen, self.images.pixels.shape[2:])
                optimiser.zero_grad()
                for _ in range(stage.students):
                    network.active = space.sample(stage.opened) if stage.opened else None
                    loss = procedure.loss(pixels, teacher, x, y)
                    loss.backward()
                    total, count = total + float(loss.detach()), count + 1
                optimiser.step()
        if not math.isfinite(total):
            raise ProgipError(
                f"stage '{stage.name}' diverged in epoch {epoch + 1}; lower its learning_rate, "
                f"now {stage.learning_rate}"
            )
        return total / count

    def _settings(
        self,
        stage: Stage,
        recipe: Recipe,
        procedure: Procedure,
        network: DynamicNetwork,
        teacher: nn.Module | None,
    ) -> Settings:
        """All that the weights of a stage depend on."""
        values = {
            "space": self.training.space.described(),
            "stage": asdict(stage),
            "recipe": recipe.recorded(),
            "procedure": asdict(procedure),
            "data": {
                "fingerprint": self.images.fingerprint(), "mean": self.mean, "std": self.std,
            },
            "seed": self.seed,
            "start": weights_fingerprint(network),
            "teacher": None if teacher is None else weights_fingerprint(teacher),
        }  # fmt: skip
        return Settings(json.loads(json.dumps(values)))

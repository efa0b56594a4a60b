"""The clean and the faulty Ablation-CAM of one stored run, executed again with its own fault."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor, nn

from progip.campaign.columns import planned_columns, result_schema
from progip.campaign.execution import reference_executor
from progip.campaign.replay import refuse_ended, stored_row, subject_again
from progip.campaign.settings import CellSettings
from progip.engine.pipeline import Observation, Pipeline
from progip.engine.reference import ReferenceExecutor
from progip.errors import ProgipError
from progip.explain.ablation_cam import Map, cam, correlation, last_maps, overlap
from progip.fault_models.base import Hits
from progip.ood_methods.base import EnterPass, no_pass
from progip.storage.whole_files import write_whole

PREFIX = "explained-"


@dataclass(frozen=True)
class Explained:
    """Both maps of a run.

    Attributes:
        run_id: of the run; layer: whose maps were ablated; label: the class that is explained.
        image: uint8 (height, width, channels), as it was before the normalisation.
        clean, faulty: (height, width) in [0, 1]; None where logits or maps are not finite.
        row: the stored row.
    """

    run_id: int
    layer: str
    label: int
    image: np.ndarray
    clean: Map | None
    faulty: Map | None
    row: dict[str, Any]

    @property
    def overlap(self) -> float:
        """Of the top fifth of both maps (intersection over union); NaN where one is missing."""
        if self.clean is None or self.faulty is None:
            return float("nan")
        return overlap(self.clean, self.faulty)

    @property
    def correlation(self) -> float:
        """Pearson's r of both maps; NaN where one is missing or constant."""
        if self.clean is None or self.faulty is None:
            return float("nan")
        return correlation(self.clean, self.faulty)

    def frame(self) -> pd.DataFrame:
        """One row per pixel: y, x, the image's channels, both maps (NaN where there is none)."""
        height, width, channels = self.image.shape
        absent = np.full((height, width), np.nan)
        y, x = np.mgrid[:height, :width]
        colours = np.broadcast_to(self.image, (height, width, 3 if channels == 1 else channels))
        return pd.DataFrame(
            {
                "run_id": self.run_id,
                "y": y.ravel(),
                "x": x.ravel(),
                **{c: colours[:, :, i].ravel() for i, c in enumerate(("red", "green", "blue"))},
                "clean": (absent if self.clean is None else self.clean).ravel(),
                "faulty": (absent if self.faulty is None else self.faulty).ravel(),
            }
        )

    def keep(self, folder: Path) -> Path:
        """Write it beside the cell's rows, for the report. Raises OSError."""
        path = folder / f"{PREFIX}{self.run_id}.parquet"
        write_whole(path, lambda place: self.frame().to_parquet(place))
        return path


class _Ablating(Pipeline):
    """Row i of all batches in their order has channel i - 1 of a layer zeroed, after any fault."""

    def __init__(self, inner: Pipeline, layer: str) -> None:
        super().__init__(inner.network, inner.method, inner.ranges)
        self._layer = inner.network.get_submodule(layer)
        self.maps: Tensor | None = None
        self.logits: list[Tensor] = []

    def __call__(self, images: Tensor, enter: EnterPass = no_pass) -> Observation:
        current, start = "", sum(map(len, self.logits))

        def enter_pass(name: str) -> None:
            nonlocal current
            current = name
            enter(name)

        def zero(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
            if current != "first_forward":
                return None
            if output.dim() != 4 or len(output) != len(images):
                raise ProgipError(
                    f"the layer gives {tuple(output.shape)}, not maps (n, channels, height, width)"
                )
            if self.maps is None:
                self.maps = output[0].detach().clone()
            channels = torch.arange(start - 1, start - 1 + len(output))
            rows = torch.nonzero((channels >= 0) & (channels < output.shape[1])).flatten()
            changed = output.clone()
            changed[rows, channels[rows]] = 0
            return changed

        handle = self._layer.register_forward_hook(zero)
        try:
            observation = super().__call__(images, enter_pass)
        finally:
            handle.remove()
        self.logits.append(observation.logits.detach())
        return observation


def explain(settings: CellSettings, run_id: int, layer: str | None = None) -> Explained:
    """Both maps of a stored run for the class of the golden run, by the reference executor.

    The run is executed once for each channel, that channel zeroed after whatever the fault did to
    it, so faults before and behind the layer are in the map alike.

    Args:
        settings: of the cell, as its manifest records them.
        layer: whose maps are ablated; None: the last of more than one pixel.

    Raises:
        ProgipError: as ``replay``; the run's fault does not hit the first forward pass; the layer
            is not there or gives no maps; the golden run has no class.
    """
    stored = stored_row(settings.folder, run_id, result_schema(settings))
    refuse_ended(stored, settings)
    row = stored.to_pylist()[0]
    if settings.fault_pass not in ("first_forward", "all"):
        raise ProgipError(
            f"run {run_id} has its fault in the pass {settings.fault_pass}; the map is of the "
            "class, which the first forward pass gives"
        )
    if row["golden_class"] < 0:
        raise ProgipError(f"run {run_id}: the fault-free network gives the image no class")
    subject, edited = subject_again(settings)
    if edited:
        raise ProgipError(f"the run was made by other code: {'; '.join(edited)}")
    network = subject.pipeline.network
    image = subject.tested.images[settings.population][row["sample_index"]][None]
    if layer is None:
        layer = last_maps(network, image)
    elif layer not in dict(network.named_modules()):
        raise ProgipError(f"--layer {layer}: the network has no such module")
    executor = reference_executor(
        settings, subject, subject.chosen(settings.fault_model, settings.fault_pass)
    )
    with torch.no_grad():
        seen: list[Tensor] = []
        handle = network.get_submodule(layer).register_forward_hook(
            lambda _, __, output: seen.append(output)
        )
        network(image)
        handle.remove()
    channels = seen[0].shape[1]
    plan = pa.concat_tables([stored.select(planned_columns(settings))] * (channels + 1))

    def harmless(part: pa.Table) -> Hits:
        hits = executor.hits(part)
        return hits._replace(mask=np.zeros_like(hits.mask), clear=None)

    size = (int(image.shape[2]), int(image.shape[3]))
    label = row["golden_class"]
    clean, faulty = (
        _cam(executor, plan, layer, label, size, which) for which in (harmless, executor.hits)
    )
    dataset = settings.subject.dataset
    shape = (-1, 1, 1)
    mean, std = (torch.tensor(part).view(shape) for part in (dataset.mean, dataset.std))
    pixels = ((image[0].cpu() * std + mean) * 255).round().clamp(0, 255).byte()
    whole = pixels.permute(1, 2, 0).numpy()
    return Explained(run_id, layer, label, whole, clean, faulty, row)


def _cam(
    executor: ReferenceExecutor,
    plan: pa.Table,
    layer: str,
    label: int,
    size: tuple[int, int],
    hits: Callable[[pa.Table], Hits],
) -> Map | None:
    pipeline = _Ablating(executor.pipeline, layer)
    executor.on(pipeline, hits).run(plan)
    scores = torch.cat(pipeline.logits)[: len(plan), label].cpu()
    assert pipeline.maps is not None
    return cam(pipeline.maps.cpu(), float(scores[0]), scores[1:], size)

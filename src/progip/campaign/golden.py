"""Golden work: all that is computed fault-free, once per subject, kept by content hash."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from progip import records
from progip.campaign.steps import Counted
from progip.datasets.base import Split
from progip.engine.observe import batches_of, golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable, profiling
from progip.errors import ProgipError
from progip.ood_methods.base import OODMethod
from progip.probes import Probe
from progip.storage.content_cache import cache_folder, content_key
from progip.storage.store import UNPERTURBED

log = logging.getLogger(__name__)

#: (population, split) of every golden table; of a method without verdicts those of ``id``
TABLES: list[tuple[str, Split]] = [
    ("id", "calibration"),
    ("id", "evaluation"),
    ("ood", "calibration"),
    ("ood", "evaluation"),
]


#: normalised images on the device, and labels, by (population, split)
CleanData = dict[tuple[str, Split], tuple[Tensor, np.ndarray]]
#: (images,) float64 by (population, split)
Scores = dict[tuple[str, Split], np.ndarray]
MakePipeline = Callable[[nn.Module, OODMethod, RangeTable], Pipeline]


@dataclass
class Golden:
    """Fault-free results of one subject.

    Attributes:
        ranges: clean value ranges, from ID training images.
        tables: golden rows (``records.golden_schema``) by (population, split).
        unperturbed: scores of the same images, in their order, by the method without its
            perturbation (``OODMethod.unperturbed``); empty where it has none.
    """

    ranges: RangeTable
    tables: dict[tuple[str, Split], pa.Table]
    unperturbed: Scores = field(default_factory=dict)

    def evaluation(self, population: str) -> pa.Table:
        """Golden rows of the evaluation images."""
        return self.tables[population, "evaluation"]


def golden_work(
    network: nn.Module,
    method: OODMethod,
    data: CleanData,
    train: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    batch_size: int,
    content: dict[str, Any],
    make: MakePipeline = Pipeline,
    probes: Sequence[Probe] = (),
) -> Golden:
    """Fit method and probes, profile ranges and observe every clean image, or load all of it.

    Processes that need the same golden work at once share it: one computes, the others wait.

    Args:
        data: (normalised images on the device, labels) by (population, split), see ``TABLES``.
        train: gives (images, labels) batches of ID training data; called only when computing.
        content: what the results depend on; its hash names the cache folder.
        make: the pipeline around the network.
        probes: those of the pipeline that may learn something.
    """
    learners = [probe for probe in probes if probe.learns]
    images = next(iter(data.values()))[0]
    root, key = cache_folder("golden"), content_key(content, images, batch_size)
    folder = root / key
    with FileLock(root / f"{key}.lock"):
        if (folder / "ranges.json").exists():
            golden = _load(folder, method, list(data), learners)
            if _still_true(golden, make(network, method, golden.ranges), data, batch_size):
                log.info("golden results loaded from %s", folder)
                return golden
            log.warning("golden results in %s do not recur on this machine; computed again", folder)
            shutil.rmtree(folder)
        log.info("golden work: statistics of the training images, clean runs of every image")
        example = data["id", "evaluation"][0][:1].repeat(2, 1, 1, 1)
        with profiling(network, example) as ranges:
            method.fit(network, _counted(train(), f"{method.name}: training images"))
        for probe in learners:
            probe.fit(network, _counted(train(), f"{probe.name}: training images"))
        pipeline = make(network, method, ranges)
        counted = Counted("clean runs", sum(len(images) for images, _ in data.values()))
        tables = {
            name: golden_table(pipeline, *images_and_labels, batch_size, counted.add)
            for name, images_and_labels in data.items()
        }
        unperturbed = _unperturbed(network, method, data, train, batch_size)
        golden = Golden(ranges, tables, unperturbed)
        _save(folder, golden, method, learners)
    return golden


def _counted(
    batches: Iterator[tuple[Tensor, Tensor]], what: str
) -> Iterator[tuple[Tensor, Tensor]]:
    counted = Counted(what)
    for images, labels in batches:
        yield images, labels
        counted.add(len(images))


def _unperturbed(
    network: nn.Module,
    method: OODMethod,
    data: CleanData,
    train: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    batch_size: int,
) -> Scores:
    """``Golden.unperturbed``, in batches as those of golden rows."""
    plain = method.unperturbed()
    if plain is None:
        return {}
    if method.learns_perturbed:
        plain.fit(network, train())
    else:
        plain.load_state(method.state())
    return {
        name: np.concatenate(
            [
                plain.score(network, images[padded])[:count].cpu().numpy()
                for padded, count in batches_of(images, batch_size)
            ]
        )
        for name, (images, _) in data.items()
    }


def unperturbed_rows(golden: Golden) -> pa.Table | None:
    """``Golden.unperturbed`` as one table, by population and split; None where it is empty."""
    parts = [
        {
            "population": np.full(len(scores), population),
            "split": np.full(len(scores), split),
            "sample_index": np.arange(len(scores), dtype=np.int32),
            "score": scores,
        }
        for (population, split), scores in golden.unperturbed.items()
    ]
    return pa.concat_tables([pa.table(part) for part in parts]) if parts else None


def clean_rows(golden: Golden) -> pa.Table:
    """Every golden row as one table, by population and split, to be read without the network."""
    parts = [
        pa.table(
            [pa.repeat(population, len(table)), pa.repeat(split, len(table)), *table.columns],
            schema=pa.schema([*records.SPLIT, *table.schema]),
        )
        for (population, split), table in golden.tables.items()
    ]
    return pa.concat_tables(parts)


def _still_true(golden: Golden, pipeline: Pipeline, data: CleanData, batch_size: int) -> bool:
    tensor, labels = data["id", "evaluation"]
    fresh = golden_table(pipeline, tensor[:batch_size], labels[:batch_size], batch_size)
    return bool(fresh.equals(golden.tables["id", "evaluation"].slice(0, len(fresh))))


def _save(folder: Path, golden: Golden, method: OODMethod, learners: Sequence[Probe]) -> None:
    """Write the folder whole or not at all; the caller holds its lock."""
    for left in folder.parent.glob(f".tmp-{folder.name}-*"):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".tmp-{folder.name}-"))
    try:
        for (population, split), table in golden.tables.items():
            pq.write_table(table, temporary / f"{population}-{split}.parquet")
        if (rows := unperturbed_rows(golden)) is not None:
            pq.write_table(rows, temporary / UNPERTURBED)
        states = {"method": method.state()}
        states |= {f"probe-{probe.name}": probe.state() for probe in learners}
        for name, state in states.items():
            kept = {key: tensor.contiguous().cpu() for key, tensor in state.items()}
            save_file(kept, temporary / f"{name}.safetensors")
        (temporary / "ranges.json").write_text(json.dumps(golden.ranges.to_json()))
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        raise ProgipError(
            f"cannot write the cache folder {folder.parent} ({error}); make room, or set "
            "PROGIP_CACHE to another folder"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _load(
    folder: Path, method: OODMethod, names: list[tuple[str, Split]], learners: Sequence[Probe]
) -> Golden:
    method.load_state(load_file(folder / "method.safetensors"))
    for probe in learners:
        probe.load_state(load_file(folder / f"probe-{probe.name}.safetensors"))
    tables = {(p, s): pq.read_table(folder / f"{p}-{s}.parquet") for p, s in names}
    ranges = RangeTable.from_json(json.loads((folder / "ranges.json").read_text()))
    return Golden(ranges, tables, _loaded_scores(folder / UNPERTURBED, names))


def _loaded_scores(path: Path, names: list[tuple[str, Split]]) -> Scores:
    if not path.exists():
        return {}
    rows = pq.read_table(path).to_pandas()
    kept = {name: part["score"].to_numpy() for name, part in rows.groupby(["population", "split"])}
    return {name: kept[name] for name in names}

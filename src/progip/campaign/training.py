"""The training campaign of a supervised protection, apart from all that is evaluated."""

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from progip.analysis.kinds import kinds_of
from progip.campaign.columns import execution_schema
from progip.campaign.execution import observed_table
from progip.campaign.held_out import PASS, HeldOut
from progip.campaign.judge import faulty_evidence, golden_evidence, runs_of
from progip.campaign.settings import CellSettings
from progip.campaign.settings_identity import identity
from progip.campaign.subject import Subject
from progip.datasets.base import Images
from progip.engine.incremental import IncrementalExecutor, NotTraceable
from progip.engine.observe import golden_table
from progip.engine.reference import ReferenceExecutor
from progip.errors import ProgipError
from progip.fault_models.base import Site
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.outcomes.base import Context
from progip.protections.base import Evidence
from progip.protections.supervised import CLEAN, FAULT, OOD, Supervised
from progip.storage import store
from progip.storage.content_cache import cache_folder, code_digest, content_key
from progip.storage.progress import duration
from progip.storage.reading import read_shard
from progip.storage.whole_files import Checkpoint, write_whole

log = logging.getLogger(__name__)

BLOCK = 2000  # runs in a file; what is lost when the process is killed
_LABEL = {"id": CLEAN, "ood": OOD}


def learn(settings: CellSettings, subject: Subject) -> None:
    """Give a cell's supervised protection what it learns, or what it has learnt before.

    What is learnt is kept by content hash, so that cells of several passes and populations share
    it. Processes that need the same share it, too: one trains, the others wait. Other protections
    need nothing.

    Raises:
        ProgipError: the evaluation leaves no layer, bit or image to learn from.
    """
    protection = settings.protection
    if not isinstance(protection, Supervised) or protection.state():
        return
    campaign = TrainingCampaign(settings, subject, protection)
    key = content_key(campaign.content, campaign.images["id"][:1], subject.tested.batch_size)
    folder = cache_folder("learnt") / key
    folder.mkdir(exist_ok=True)
    path = folder / "state.safetensors"
    with FileLock(folder / ".lock"):
        try:
            protection.load_state(load_file(path))
            log.info("protection %s: what it learnt is loaded from %s", protection.name, path)
            return
        except (FileNotFoundError, SafetensorError):  # a damaged file is made anew
            pass
        runs, labels, hit = campaign.rows()
        checkpoint = Checkpoint(folder / "training.checkpoint.pt")
        protection.learn(runs, labels, hit, checkpoint)
        write_whole(path, lambda draft: save_file(protection.state(), draft))
        checkpoint.remove()


def learnt_from(settings: CellSettings, subject: Subject) -> dict[str, Any] | None:
    """For the manifest: what a supervised protection learnt from, and a hash of what it learnt."""
    protection = settings.protection
    if not isinstance(protection, Supervised):
        return None
    return TrainingCampaign(settings, subject, protection).described()


@dataclass(frozen=True)
class TrainingCampaign:
    """Runs of which the evaluation of a cell meets no layer, no bit and no image (``HeldOut``).

    Args:
        settings: of the cell.
    """

    settings: CellSettings
    subject: Subject
    protection: Supervised

    @cached_property
    def held_out(self) -> HeldOut:
        """What may be learnt from."""
        return HeldOut(self.settings, self.subject, self.protection)

    @cached_property
    def sites(self) -> list[Site]:
        """Whose outputs are hit."""
        return self.held_out.sites

    @cached_property
    def chosen(self) -> dict[str, Images]:
        """The images by population."""
        return self.held_out.images

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """The same, as the network is given them."""
        return {name: self.subject.tested.placed(part) for name, part in self.chosen.items()}

    @property
    def content(self) -> dict[str, Any]:
        """What is learnt depends on this, beside the machine."""
        tested, protection = self.subject.tested, self.protection
        options = {k: v for k, v in identity(protection).items() if k != "ood"}
        components = [protection, self.settings.outcome]
        return {
            **tested.identity,
            "protection": options,
            "outcome": identity(self.settings.outcome),
            "layers": [list(site.key) for site in self.sites],
            "bits": self.held_out.bits,
            "learnt_from": {name: part.fingerprint() for name, part in self.chosen.items()},
            "code": [tested.code, code_digest(components)],
        }

    def rows(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Evidence and labels of every clean image and of every run, and which rows are runs."""
        parts: list[Evidence] = []
        labels, hit = [], []
        watches = self.protection.watches
        share = self.protection.runs // len(self.chosen)
        for population, chosen in self.chosen.items():
            golden = golden_table(
                self.subject.pipeline,
                self.images[population],
                chosen.labels,
                self.subject.tested.batch_size,
            )
            clean = golden_evidence(golden)
            parts.append({name: clean[name] for name in watches})
            labels.append(np.full(len(golden), _LABEL[population]))
            hit.append(np.zeros(len(golden), dtype=bool))
            for table in self._executed(population, golden, share):
                parts.append(faulty_evidence(table, watches))
                failed = self._critical(table, population)
                labels.append(np.where(failed, FAULT, _LABEL[population]))
                hit.append(np.ones(len(table), dtype=bool))
        every = np.concatenate(labels)
        counted = dict(zip(("clean", "OOD", "fault"), np.bincount(every, minlength=3), strict=True))
        log.info(
            "protection %s: learns from %s rows", self.protection.name,
            ", ".join(f"{count:,} {name}" for name, count in counted.items()),
        )  # fmt: skip
        together = {n: np.concatenate([p[n] for p in parts]) for n in watches}
        return together, every, np.concatenate(hit)

    def plan(self, population: str, start: int, stop: int, runs: int) -> pa.Table:
        """``records.PLAN`` of runs start..stop-1: images in turn, so that few are met at once."""
        flip = SingleBitFlip(name="training", layer_types=None, bits=self.held_out.bits)
        images, seed = len(self.chosen[population]), self.protection.seed
        plan = flip.plan(self.sites, images, seed, f"training/{population}", start, stop)
        turn = (np.arange(start, stop) * images // runs).astype(np.int32)
        place = plan.schema.get_field_index("sample_index")
        return plan.set_column(place, plan.schema.field(place), pa.array(turn))

    def folder(self, population: str, runs: int) -> Path:
        """Keeps executed runs, for a campaign that goes on, and for others that need the same."""
        tested = self.subject.tested
        content = {
            **tested.identity,
            "layers": [list(site.key) for site in self.sites],
            "bits": self.held_out.bits,
            "images": self.chosen[population].fingerprint(),
            "seed": self.protection.seed,
            "plan": [population, runs],
            "code": [tested.code, code_digest([])],
        }
        key = content_key(content, self.images[population][:1], tested.batch_size)
        folder = cache_folder("training_runs") / key
        folder.mkdir(exist_ok=True)
        return folder

    def _executed(self, population: str, golden: pa.Table, runs: int) -> Iterator[pa.Table]:
        """The executed runs of a population, in blocks, from files where they are there."""
        folder = self.folder(population, runs)
        with FileLock(folder / ".lock"):
            yield from self._blocks(population, golden, runs, folder)

    def _blocks(
        self, population: str, golden: pa.Table, runs: int, folder: Path
    ) -> Iterator[pa.Table]:
        tested, labels = self.subject.tested, self.chosen[population].labels
        images, schema = self.images[population], execution_schema(self.settings)
        executor: IncrementalExecutor | ReferenceExecutor | None = None
        begun, done = time.monotonic(), 0
        for start in range(0, runs, BLOCK):
            stop = min(start + BLOCK, runs)
            path = store.shard_path(folder, start, stop)
            if path.exists():
                try:
                    yield read_shard(path, schema)[1]
                    continue
                except (ProgipError, OSError, pa.ArrowException):
                    log.warning("%s is damaged; executed again", path)
            if executor is None:
                executor = self._executor(images, labels)
            plan = self.plan(population, start, stop, runs)
            table = observed_table(
                plan, golden, executor.run(plan), schema,
                lambda: self.subject.super_layers, sites=self.sites,
            )  # fmt: skip
            store.write_shard(folder, start, stop, table)
            done += stop - start
            left = (time.monotonic() - begun) / done * (runs - stop)
            log.info(
                "protection %s: training campaign, %s images of '%s': %d of %d runs, %s left",
                self.protection.name, population, tested.settings.model.name, stop, runs,
                duration(left),
            )  # fmt: skip
            yield table

    def _executor(
        self, images: Tensor, labels: np.ndarray
    ) -> IncrementalExecutor | ReferenceExecutor:
        subject, settings = self.subject, self.settings
        traced = subject.traced
        if settings.executor == "incremental" and not isinstance(traced, NotTraceable):
            memory = settings.subject.memory
            return IncrementalExecutor(traced, self.sites, PASS, images, memory, labels)
        size = subject.tested.batch_size
        return ReferenceExecutor(subject.pipeline, self.sites, PASS, images, size, None, labels)

    def _critical(self, table: pa.Table, population: str) -> np.ndarray:
        if self.protection.label_by == "any":
            return np.ones(len(table), dtype=bool)
        outcome = self.settings.outcome
        context = Context(population, self.subject.thresholds.ood)
        flags = outcome.judge(runs_of(table, outcome.needs), context)
        return kinds_of(outcome.declared).failed(flags)

    def described(self) -> dict[str, Any]:
        """For the manifest: what was learnt from, and what was learnt."""
        state, ood = self.protection.state(), self.protection.ood_set
        digest = hashlib.sha256()
        for name in sorted(state):
            digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
        return {
            "layers": list(dict.fromkeys(site.layer for site in self.sites)),
            "bits": self.held_out.bits,
            "images": {name: len(images) for name, images in self.chosen.items()},
            "ood_dataset": ood.name if ood is not None and "ood" in self.chosen else None,
            "runs": self.protection.runs // len(self.chosen) * len(self.chosen),
            "state_sha256": digest.hexdigest(),
        }

"""What one cell needs to know: plain dataclasses, free of Hydra."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from progip import records
from progip.analysis.kinds import kinds_of
from progip.campaign.sizing import Sizing
from progip.conditions.all_images import ALL_IMAGES
from progip.conditions.base import Condition
from progip.datasets.base import Dataset
from progip.datasets.none import NoImages
from progip.devices import exact_device, gpu
from progip.engine.targets import target_of
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel
from progip.models.base import Model
from progip.number_formats.base import NumberFormat
from progip.number_formats.fp32 import FP32
from progip.ood_methods.base import OODMethod
from progip.outcomes.base import Outcome
from progip.outcomes.ood_verdict import DECLARED as USUAL
from progip.outcomes.ood_verdict import OODVerdict
from progip.passes import is_pass
from progip.probes import Probe
from progip.probes.needs import check_needs
from progip.protections.base import Protection
from progip.protections.correcting import Correcting
from progip.sampling.base import SamplingPlan
from progip.sampling.uniform import Uniform
from progip.stopping.base import StoppingRule
from progip.stopping.none import NoStopping
from progip.storage import store

MOST_ROWS_ON_GPU = 1024


@dataclass(kw_only=True)
class SubjectSettings:
    """What is attacked: everything golden work depends on.

    Attributes:
        batch_size: most rows of a batch, golden and faulty alike; None: 32, on a GPU up to 1024.
        golden_memory: bytes the incremental executor may use for golden values and runs under
            way; batches are made smaller where a network would need more. None: 2 GiB, on a GPU
            half of its memory.
        channels_last: keep images and activations in that memory format, often faster on CPUs.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``auto`` (CUDA where there is one).
        correction: the protection that changes what is executed; None for one that only watches.
        number_format: that the network computes in, and whose codes faults hit.
        probes: what is observed beside what every detector shows.
    """

    model: Model
    dataset: Dataset
    ood_dataset: Dataset
    ood_method: OODMethod
    batch_size: int | None = None
    golden_memory: int | None = None
    channels_last: bool = True
    device: str = "auto"
    correction: Correcting | None = None
    number_format: NumberFormat = field(default_factory=lambda: FP32)
    probes: tuple[Probe, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ProgipError(f"batch_size={self.batch_size}: must be at least 1")
        if not self.ood_method.verdicts and not isinstance(self.ood_dataset, NoImages):
            raise ProgipError(
                f"ood_dataset={self.ood_dataset.name}: ood_method '{self.ood_method.name}' looks "
                "at no OOD image; leave ood_dataset out, or give ood_dataset=none"
            )
        if self.golden_memory is not None and self.golden_memory < 2**20:
            raise ProgipError(f"golden_memory={self.golden_memory}: give at least 2**20 bytes")

    @property
    def rows(self) -> int:
        """``batch_size``, or what takes its place."""
        return self.batch_size or (MOST_ROWS_ON_GPU if gpu(self.device) else 32)

    @property
    def memory(self) -> int:
        """``golden_memory``, or what takes its place: on one machine always the same."""
        name = gpu(self.device)
        if self.golden_memory is not None or not name:
            return self.golden_memory or 2**31
        return int(torch.cuda.get_device_properties(name).total_memory // 2)

    def torch_device(self) -> torch.device:
        """The device to run on. Raises ProgipError where it does not exist."""
        return exact_device(self.device)


@dataclass(kw_only=True)
class CellSettings:
    """One cell: a subject, what hits it where, what watches it, and how many runs.

    Attributes:
        runs: planned runs; the most there can be where ``stopping`` watches a rate.
        outcome: what counts as a failure.
        condition: which images faults are drawn for.
        sampling, stopping, sizing: how faults are drawn, when it is enough, how ``runs`` is found.
        seed: of the plan; run i's fault depends on (seed, cell, i) alone.
        folder: of the cell's rows; the executed runs that protections share lie beside it.
        shard_size: runs in one Parquet file.
        threads: of torch; 0 leaves its default.
        executor: ``incremental`` or ``reference``.
        self_check: share of the runs that the reference executes again, to be compared; 0: none.
        part: which of several processes on this cell this one is, for log lines.
    """

    subject: SubjectSettings
    population: str
    fault_model: FaultModel
    fault_pass: str
    protection: Protection
    outcome: Outcome = field(default_factory=lambda: OODVerdict(name="ood_verdict"))
    condition: Condition = field(default_factory=lambda: ALL_IMAGES)
    runs: int
    seed: int
    folder: Path
    shard_size: int = 5000
    threads: int = 0
    executor: str = "incremental"
    self_check: float = 0.005
    part: int = 0
    sampling: SamplingPlan = field(default_factory=lambda: Uniform(name="uniform"))
    stopping: StoppingRule = field(default_factory=lambda: NoStopping(name="none"))
    sizing: Sizing = field(default_factory=Sizing)

    def __post_init__(self) -> None:
        self._check_pass()
        for key, value, choices in (
            ("population", self.population, records.POPULATIONS),
            ("executor", self.executor, ("incremental", "reference")),
        ):
            if value not in choices:
                raise ProgipError(f"{key}={value!r} is not one of {', '.join(choices)}")
        if self.runs < 1:
            raise ProgipError(f"runs={self.runs}: a cell needs at least one run")
        if self.shard_size < 1:
            raise ProgipError(f"shard_size={self.shard_size}: must be at least 1")
        if not 0 <= self.self_check <= 1:
            raise ProgipError(f"self_check={self.self_check}: must lie between 0 and 1")
        rates = kinds_of(self.outcome.declared).rates
        if self.stopping.quantity not in (None, *rates):
            raise ProgipError(
                f"stopping.of={self.stopping.quantity!r} is not one of {', '.join(rates)}"
            )
        method = self.subject.ood_method
        if self.population not in method.populations:
            raise ProgipError(
                f"population={self.population}: ood_method '{method.name}' judges no OOD input; "
                "add population=id"
            )
        if self.sampling.sized and self.sizing.margin is not None:
            raise ProgipError(
                f"sizing.margin={self.sizing.margin:g}: sampling={self.sampling.name} says itself "
                "how many runs a cell has; leave one of the two out"
            )
        self._check_components()
        self.sampling.check_roulette()
        if self.seed < 0:
            raise ProgipError(f"seed={self.seed}: must not be negative")

    def _check_pass(self) -> None:
        """The pass must be one that the method has, or all of them for what stays in memory."""
        model, stays = self.fault_model, self.fault_model.scope == "round"
        if stays != (self.fault_pass == records.EVERY_PASS):
            raise ProgipError(
                f"pass={self.fault_pass}: faults of fault_model '{model.name}' "
                + (
                    "stay in memory and are there in every pass; add pass=all"
                    if stays
                    else "are of one pass; choose the pass with pass=NAME"
                )
            )
        if self.sizing.maps is not None and not stays:
            raise ProgipError(
                f"sizing.maps={self.sizing.maps}: fault_model '{model.name}' has other faults in "
                "every run, and no fault map; leave it out"
            )
        method = self.subject.ood_method
        if not stays and not is_pass(self.fault_pass):
            raise ProgipError(f"pass={self.fault_pass!r} is not one of {', '.join(method.passes)}")
        if not stays and self.fault_pass not in method.passes:
            raise ProgipError(
                f"pass={self.fault_pass}: ood_method '{method.name}' has only "
                f"{', '.join(method.passes)}; choose the pass with pass=NAME"
            )

    def _check_components(self) -> None:
        """What looks at runs must find its columns, and fit the population and the classes."""
        method, probes = self.subject.ood_method, self.subject.probes
        watches = self.protection.watches
        owner = f"protection '{self.protection.name}'"
        check_needs(owner, watches, method.name, method.evidence, probes)
        shown = ("class", *method.evidence, "score")  # every method has a class and a score
        classes = self.subject.dataset.classes
        for probe in probes:
            probe.check(classes)
        judged: dict[str, Outcome | Condition] = {
            "outcome": self.outcome,
            "condition": self.condition,
        }
        for kind, what in judged.items():
            owner = f"{kind} '{what.name}'"
            check_needs(owner, what.needs, method.name, shown, probes, truth=True)
            if self.population not in what.populations:
                raise ProgipError(
                    f"population={self.population}: {owner} is of "
                    f"{', '.join(what.populations)} inputs; add population=id"
                )
            what.check(classes)

    @property
    def execution_key(self) -> str:
        """Names what is executed: as ``fault_key``, with a protection that changes it."""
        correction = self.subject.correction
        return self.fault_key if correction is None else f"{self.fault_key}/{correction.name}"

    @property
    def execution_folder(self) -> Path:
        """Of the executed runs; protections that only watch share it."""
        correction = self.subject.correction
        return store.execution_folder(self.folder, correction.name if correction else None)

    @property
    def fault_key(self) -> str:
        """Names the cell for the random numbers: without the protection, which changes no fault."""
        s, images = self.subject, self.condition.name
        usual = s.number_format.name == FP32.name
        return "/".join(
            [
                s.model.name if usual else f"{s.model.name}-{s.number_format.name}",
                s.dataset.name,
                s.ood_dataset.name,
                self.population if images == ALL_IMAGES.name else f"{self.population}-{images}",
                s.ood_method.name,
                self.fault_model.name,
                self.fault_pass,
            ]
        )

    @property
    def label(self) -> str:
        """Names the cell, and the process where it is one of several, in log lines and bars."""
        return f"{self.fault_key} (part {self.part})" if self.part else self.fault_key

    @property
    def names(self) -> dict[str, str]:
        """The columns of ``records.CELL``."""
        s = self.subject
        which = "" if self.outcome.name == USUAL.name else f"/{self.outcome.name}"
        return {
            "cell": f"{self.fault_key}/{self.protection.name}{which}",
            "model": s.model.name,
            "dataset": s.dataset.name,
            "ood_dataset": s.ood_dataset.name,
            "population": self.population,
            "ood_method": s.ood_method.name,
            "fault_model": self.fault_model.name,
            "fault_pass": self.fault_pass,
            "protection": self.protection.name,
            "outcome": self.outcome.name,
            "condition": self.condition.name,
            "number_format": s.number_format.name,
            "target": self.fault_model.target or target_of(self.fault_pass).name,
        }

"""What a protection costs where it is deployed: the guarded detector against the unguarded one."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from progip.campaign.settings import CellSettings, SubjectSettings
from progip.campaign.subject import Subject, prepare
from progip.campaign.training import learn
from progip.deploy.calibration import guarded_subject
from progip.deploy.detector import RANGE_CHECKS
from progip.deploy.timing import Pairs, threads, timed_pairs
from progip.errors import ProgipError
from progip.probes.needs import check_needs, probes_for
from progip.protections.base import Protection
from progip.protections.correcting import Correcting
from progip.protections.none import NoProtection
from progip.protections.supervised import Supervised
from progip.storage import provenance

log = logging.getLogger(__name__)

FOLDER = "runtime"
SCHEMA_VERSION = 1
BASELINE = "none"
MOST_BATCHES = 16
RANGE_CHECK_EVERY = 5  # they cost so much that fewer pairs tell


@dataclass(frozen=True)
class Effort:
    """How long and how a runtime is measured.

    Attributes:
        seconds: of pairs for one network, OOD method and batch size.
        repetitions: at most so many pairs for each protection.
        threads: of torch, and processors the process may use.
        pin: whether the process stays on those processors.
    """

    seconds: float = 60.0
    repetitions: int = 4000
    threads: int = 1
    pin: bool = True


def measure_runtime(
    cell: CellSettings,
    protections: Sequence[Protection],
    batch: int,
    effort: Effort | None = None,
) -> dict[str, Any]:
    """Time every protection in pairs with the unprotected detector, one batch size.

    Protections that watch ranges are timed with fused checks and with checks in every layer,
    correcting ones in a network of their own. Probes that a protection needs are switched on; each
    detector gathers those of its own protection alone. A protection that cannot watch the OOD
    method (one of gradients, say, a method without any) is left out, and the log says so. The
    unprotected detector is timed against itself, too: that ratio must be 1, and its interval shows
    what the machine's noise leaves to see.

    Args:
        cell: its subject is timed (``batch_size`` there is that of calibration; ``batch`` images
            are timed); its fault model tells what protections that learn from faults learn from.

    Returns:
        what `write_runtime` keeps: identity, machine, and the pairs in microseconds a call.

    Raises:
        ProgipError: an argument leaves nothing to measure, no protection fits the OOD method, or
            the subject cannot be prepared.
    """
    effort = effort or Effort()
    if batch < 1:
        raise ProgipError(f"runtime: a batch of {batch} images; give at least 1")
    settings, protections = _fitting(cell.subject, protections)
    cell = replace(cell, subject=settings)
    with threads(effort.threads, effort.pin):
        subject = prepare(settings)
        layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        nothing = NoProtection(name=BASELINE)
        baseline = guarded_subject(subject, nothing)
        contestants = {(BASELINE, ""): guarded_subject(subject, nothing)}
        for protection in protections:
            guarded = subject
            if isinstance(protection, Supervised):
                learn(replace(cell, protection=protection), subject)
            if isinstance(protection, Correcting):
                guarded = prepare(replace(settings, correction=protection))
            detector = guarded_subject(guarded, protection)
            if not detector.checks_ranges:
                contestants[protection.name, ""] = detector
                continue
            forms = RANGE_CHECKS if "range_excess" in detector.thresholds else ("fused",)
            for form in forms:
                contestants[protection.name, form] = guarded_subject(guarded, protection, form)
        names = {" ".join(key).strip(): key for key in contestants}
        pairs = timed_pairs(
            baseline,
            {name: contestants[key] for name, key in names.items()},
            _batches(subject, batch, layout),
            seconds=effort.seconds,
            repetitions=effort.repetitions,
            every={name: RANGE_CHECK_EVERY if key[1] else 1 for name, key in names.items()},
        )
        hardware = provenance.hardware(subject.tested.device)
    return {
        "kind": "runtime",
        "schema_version": SCHEMA_VERSION,
        "model": settings.model.name,
        "dataset": settings.dataset.name,
        "ood_dataset": settings.ood_dataset.name,
        "ood_method": settings.ood_method.name,
        "batch": batch,
        "device": subject.tested.device.type,
        "threads": effort.threads,
        "pinned": effort.pin and hasattr(os, "sched_setaffinity"),
        "channels_last": settings.channels_last,
        "weights_sha256": subject.tested.identity["weights_sha256"],
        "hardware": hardware,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "variants": [
            {"protection": names[name][0], "range_checks": names[name][1], **_microseconds(found)}
            for name, found in pairs.items()
        ],
    }


def _fitting(
    settings: SubjectSettings, protections: Sequence[Protection]
) -> tuple[SubjectSettings, list[Protection]]:
    """The subject with the probes that protections need, and those that can watch its method.

    Raises:
        ProgipError: there are some, and none can.
    """
    method, probes = settings.ood_method, settings.probes
    fitting, reasons = [], []
    for protection in protections:
        made = {column.name for probe in probes for column in probe.produces}
        more = probes_for(protection.watches, (*method.evidence, *made))
        owner = f"protection '{protection.name}'"
        try:
            check_needs(owner, protection.watches, method.name, method.evidence, (*probes, *more))
        except ProgipError as reason:
            reasons.append(str(reason).partition(";")[0])
            continue
        probes = (*probes, *more)
        fitting.append(protection)
    if reasons and not fitting:
        raise ProgipError(f"runtime: nothing to time; {'; '.join(reasons)}")
    for said in reasons:
        log.warning("left out: %s", said)
    return replace(settings, probes=probes), fitting


def write_runtime(folder: str | Path, measured: dict[str, Any]) -> Path:
    """Keep a measurement in FOLDER/runtime, in place of an earlier one of the same things.

    Raises:
        ProgipError: the folder cannot be written.
    """
    keys = ("model", "dataset", "ood_dataset", "ood_method")
    name = "-".join([*(measured[key] for key in keys), f"batch{measured['batch']}"])
    path = Path(folder) / FOLDER / f"{name}-{measured['device']}.json"
    draft = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(measured) + "\n", encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise ProgipError(f"cannot write {path} ({error.strerror}); give another folder") from error
    return path


def _batches(subject: Subject, size: int, memory_format: torch.memory_format) -> list[Tensor]:
    """Batches of evaluation images in the memory format of the network.

    ID and OOD images in turns, where the method judges both.
    """
    parts = []
    for number in range(MOST_BATCHES):
        turn, which = divmod(number, len(subject.tested.method.populations))
        images = subject.tested.images[subject.tested.method.populations[which]]
        rows = torch.arange(turn * size, (turn + 1) * size) % len(images)
        chosen = images[rows.to(images.device)]
        parts.append(chosen.contiguous(memory_format=memory_format))
    return parts


def _microseconds(pairs: Pairs) -> dict[str, list[list[float]]]:
    return {
        clock: [[round(1e6 * seconds, 1) for seconds in pair] for pair in getattr(pairs, clock)]
        for clock in ("wall", "processor")
    }

"""Makes a guarded detector: fits the method, profiles ranges and sets every threshold."""

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from torch import Tensor, nn

from progip import records
from progip.campaign.judge import golden_evidence
from progip.campaign.settings import CellSettings
from progip.campaign.subject import Subject, prepare
from progip.campaign.thresholds import TRUE_POSITIVE_RATE
from progip.campaign.training import learn
from progip.deploy.detector import GuardedDetector, check_images
from progip.deploy.protecting import protected_network
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.errors import ProgipError
from progip.models.checking import check_layers, check_repeatable
from progip.ood_methods.base import OODMethod
from progip.probes import Probe
from progip.probes.needs import check_needs, probes_for
from progip.protections.base import Protection
from progip.protections.correcting import Correcting
from progip.protections.supervised import Supervised
from progip.statistics import threshold_at_tpr


def guarded_detector(
    network: nn.Module,
    method: OODMethod,
    protection: Protection,
    *,
    train: Iterable[tuple[Tensor, Tensor]],
    id_images: Tensor,
    ood_images: Tensor | None = None,
    true_positive_rate: float = TRUE_POSITIVE_RATE,
    batch_size: int = 32,
    range_checks: str = "fused",
    probes: Sequence[Probe] | None = None,
) -> GuardedDetector:
    """A detector with calibrated thresholds from a network and three sets of images.

    All images are normalised, on the network's device, (n, channels, height, width). The network is
    in evaluation mode with frozen parameters; ``method`` is fitted here.

    Args:
        train: (images, labels) batches of ID training data: class statistics, value ranges, and
            what a correcting protection learns, which then is put into a copy of the network.
        id_images: ID images that the network was not trained on: all thresholds.
        ood_images: OOD images, for the thresholds of the protection alone; without them, harmless
            OOD inputs raise more alarms.
        true_positive_rate: share of the ID images whose verdict shall be ID.
        batch_size: in which calibration runs.
        range_checks: see ``GuardedDetector``.
        probes: those that show what the protection needs; None makes them with their defaults.

    Raises:
        ProgipError: the protection has yet to learn, an input does not fit, or clean scores or
            activations are not finite.
    """
    if network.training:
        raise ProgipError("guarded detector: call network.eval() first")
    check_images("id_images", id_images)
    if ood_images is not None:
        check_images("ood_images", ood_images)
    probes = probes_for(protection.watches, method.evidence) if probes is None else probes
    owner = f"protection '{protection.name}'"
    if isinstance(protection, Supervised) and not protection.state():
        raise ProgipError(
            f"{owner} learns from faults, and nothing here injects any: give it what a campaign "
            "has learnt (protection.load_state), or make the detector of the campaign itself with "
            "guarded_cell (docs/deploying.md)"
        )
    check_needs(owner, protection.watches, method.name, method.evidence, probes)
    learners = [probe for probe in probes if probe.learns]
    if isinstance(protection, Correcting) or learners:
        train = list(train)
    if isinstance(protection, Correcting):
        network = protected_network(network, protection, train)
    check_layers(network, "guarded detector")
    check_repeatable(network, "guarded detector: the network", id_images[:batch_size])
    example = id_images[:1].repeat(2, 1, 1, 1)
    with profiling(network, example) as ranges:
        batches = iter(train)
        first = next(batches, None)
        if first is None:
            raise ProgipError("train: there is no batch of training images")
        method.fit(network, chain([first], batches))
    for probe in learners:
        probe.fit(network, train)
    pipeline = Pipeline(network, method, ranges, probes)
    clean = {
        population: golden_table(
            pipeline, images, np.full(len(images), records.OOD_LABEL), batch_size
        )
        for population, images in zip(records.POPULATIONS, (id_images, ood_images), strict=True)
        if images is not None
    }
    scores = clean["id"]["score"].to_numpy()
    every = pa.concat_tables(clean.values())
    if not all(np.isfinite(every[name].to_numpy()).all() for name in ("score", "grad_max")):
        raise ProgipError(
            f"ood_method '{method.name}': a clean score or gradient is not finite; the weights, "
            "the normalisation or the method's options do not fit"
        )
    threshold = threshold_at_tpr(scores, true_positive_rate) if method.verdicts else 0.0
    seen = [table for population, table in clean.items() if population in protection.calibrated_on]
    evidence = golden_evidence(pa.concat_tables(seen))
    return GuardedDetector(
        network,
        method,
        protection,
        thresholds=protection.calibrate(evidence, gradient_vanishes=method.gradient_vanishes),
        ood_threshold=threshold,
        ranges=ranges,
        range_checks=range_checks,
        probes=probes,
    )


def guarded_cell(settings: CellSettings, range_checks: str = "fused") -> GuardedDetector:
    """The detector of a campaign's cell; a protection that learns from faults is trained first.

    What the campaign has learnt is taken from the cache where it is there.

    Raises:
        ProgipError: as a campaign would.
    """
    subject = prepare(settings.subject)
    learn(settings, subject)
    return guarded_subject(subject, settings.protection, range_checks)


def guarded_subject(
    subject: Subject, protection: Protection, range_checks: str = "fused"
) -> GuardedDetector:
    """The detector of a campaign, with the thresholds that judged the campaign's rows."""
    method, probes = subject.tested.method, subject.tested.settings.probes
    owner = f"protection '{protection.name}'"
    check_needs(owner, protection.watches, method.name, method.evidence, probes)
    return GuardedDetector(
        subject.tested.network,
        subject.tested.method,
        protection,
        thresholds=subject.thresholds.of(protection),
        ood_threshold=subject.thresholds.ood,
        ranges=subject.golden.ranges,
        range_checks=range_checks,
        probes=probes,
    )

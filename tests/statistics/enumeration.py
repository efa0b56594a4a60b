"""The whole truth of a tiny detector: every (image, site, bit) of a pass, executed."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import schemas
import torch
from torch import nn

from progip import records
from progip.analysis.kinds import OOD_VERDICT
from progip.analysis.tally import Tally
from progip.campaign.execution import observed_table
from progip.campaign.judge import evidence_of, golden_evidence, judge
from progip.engine.clean_values import CleanValues
from progip.engine.observe import golden_table
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import profiling
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.single_bit_flip import SingleBitFlip
from progip.ood_methods.odin import ODIN
from progip.outcomes.ood_verdict import OODVerdict
from progip.protections.progip import ProGIP
from progip.sampling.base import FaultSpace, Pilot, SamplingPlan
from progip.statistics.roc import threshold_at_tpr
from progip.statistics.strata import Moments

IMAGES = 24
CLASSES = 3


def network() -> nn.Module:
    """Convolution, pool, hidden layer, head on 4x4 images: 48 neurons in three hit layers."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8, 6),
            nn.ReLU(),
            nn.Linear(6, CLASSES),
        )
        for parameter in model.parameters():
            parameter.data *= 2
    return model.eval().requires_grad_(False)


class _Listed:
    """`CleanValues` with every answer looked up ahead: thousands of campaigns ask."""

    def __init__(self, inner: CleanValues) -> None:
        self.scale, self.counts = inner.scale, inner.counts
        order = np.moveaxis(inner.counts, 1, 2)  # sites, images, codes
        asked = np.repeat(np.arange(order.size), order.ravel())
        self._first = (np.cumsum(order) - order.ravel()).reshape(order.shape)
        site, image, code = np.unravel_index(asked, order.shape)
        rank = np.arange(len(asked)) - self._first.ravel()[asked]
        self._neuron = inner.neurons(image, site, code, rank)

    def neurons(
        self, image: np.ndarray, site: np.ndarray, code: np.ndarray, rank: np.ndarray
    ) -> np.ndarray:
        found: np.ndarray = self._neuron[self._first[site, image, code] + rank]
        return found


@dataclass(frozen=True)
class Truth:
    """What every fault of one pass does.

    Attributes:
        category: (images, neurons of all sites, bits) int8, see ``progip.analysis.kinds``.
        first: layer name -> position of its first neuron.
    """

    space: FaultSpace
    category: np.ndarray
    first: dict[str, int]

    @classmethod
    def of_pass(cls, fault_pass: str) -> "Truth":
        generator = torch.Generator().manual_seed(5)
        images = torch.randn(IMAGES, 1, 4, 4, generator=generator)
        model = network()
        labels = model(images).argmax(1).numpy()
        labels[::8] = (labels[::8] + 1) % CLASSES  # some are wrong without any fault
        method = ODIN(name="odin", std=[0.5], epsilon=0.02, temperature=10.0)
        with profiling(model, images[:2]) as ranges:
            method.fit(model, [(images, torch.from_numpy(labels))])
        pipeline = Pipeline(model, method, ranges)
        fault_model = SingleBitFlip(name="flip")
        sites = fault_model.select(find_sites(model, method, images[:2])[fault_pass])
        golden = golden_table(pipeline, images, labels, 256)
        every = [
            (image, site.layer, neuron, bit)
            for image in range(IMAGES)
            for site in sites
            for neuron in range(site.neurons)
            for bit in range(32)
        ]
        columns = dict(zip(("sample_index", "layer", "neuron", "bit"), zip(*every, strict=True),
                           strict=True))  # fmt: skip
        rows = len(every)
        plan = pa.table(
            {
                "run_id": np.arange(rows),
                **{name: list(values) for name, values in columns.items()},
                "call": np.zeros(rows),
                "weight": np.ones(rows),
                "stratum": np.zeros(rows),
            }
        )
        plan = plan.select(records.PLAN.names).cast(records.PLAN)
        reference = ReferenceExecutor(pipeline, sites, fault_pass, images, 256)
        observed = reference.run(plan)
        scores = golden["score"].to_numpy()
        threshold = threshold_at_tpr(scores, 0.9)
        values = _Listed(CleanValues(reference))
        protection = ProGIP(name="progip")
        limits = protection.calibrate(golden_evidence(golden), gradient_vanishes=True)
        names = {name: name for name in records.CELL.names} | {"population": "id"}
        table = observed_table(plan, golden, observed, schemas.EXECUTION, sites=sites)
        result = judge(
            table,
            names,
            OODVerdict(name="ood_verdict"),
            protection,
            limits,
            threshold,
            evidence_of(golden.schema),
            schemas.RESULT,
        )
        flags = {name: result[name].to_numpy() for name in OOD_VERDICT.flags}
        neurons = sum(site.neurons for site in sites)
        ends = np.cumsum([0, *(site.neurons for site in sites)])
        correct = flags["originally_correct"].reshape(IMAGES, -1)[:, 0]
        return cls(
            FaultSpace(fault_model, sites, correct, np.abs(scores - threshold), lambda: values),
            OOD_VERDICT.categories(flags).reshape(IMAGES, neurons, 32).astype(np.int8),
            {site.layer: int(end) for site, end in zip(sites, ends, strict=False)},
        )

    def rate(self, name: str, estimand: str = "layer_mean") -> float:
        """The true value of a rate: every layer equally likely, or every neuron, or by its MACs."""
        masses = self._masses(estimand)
        events, base = OOD_VERDICT.rates[name]
        total = masses[OOD_VERDICT.masks[base]].sum()
        return float(masses[OOD_VERDICT.masks[events]].sum() / total) if total else float("nan")

    def share(self, kind: str) -> float:
        """The share of runs that are of a kind, of ``Kinds.masks``."""
        return float(self._masses("layer_mean")[OOD_VERDICT.masks[kind]].sum())

    def _masses(self, estimand: str) -> np.ndarray:
        """The probability of every category, (K,)."""
        sites = self.space.sites
        share = {
            "layer_mean": [1.0] * len(sites),
            "neuron_weighted": [float(site.neurons) for site in sites],
            "mac_weighted": [float(site.macs) for site in sites],
        }[estimand]
        weight = np.concatenate(
            [np.full(site.neurons, s / site.neurons) for s, site in zip(share, sites, strict=True)]
        )
        full = np.broadcast_to(weight[None, :, None], self.category.shape)
        size = OOD_VERDICT.count
        masses: np.ndarray = np.bincount(self.category.ravel(), full.ravel(), minlength=size)
        return masses / masses.sum()

    def look_up(self, plan: pa.Table) -> np.ndarray:
        """The category of every planned run."""
        layer = plan["layer"].dictionary_encode().combine_chunks()
        first = np.array([self.first[name] for name in layer.dictionary.to_pylist()])
        neuron = plan["neuron"].to_numpy() + first[layer.indices.to_numpy()]
        found: np.ndarray = self.category[
            plan["sample_index"].to_numpy(), neuron, plan["bit"].to_numpy()
        ]
        return found

    def manifest(self, sampling: SamplingPlan, pilot: Pilot | None) -> dict:
        sites = self.space.sites
        return {
            "sampling": sampling.describe(self.space, pilot),
            "layers": [
                {"layer": s.layer, "call": s.call, "neurons": s.neurons, "macs": s.macs}
                for s in sites
            ],
        }


def flags_of(category: np.ndarray) -> dict[str, np.ndarray]:
    """The columns ``Kinds.flags`` of categories."""
    return {name: (category >> i & 1).astype(bool) for i, name in enumerate(OOD_VERDICT.flags)}


def campaign(
    truth: Truth,
    sampling: SamplingPlan,
    seed: int,
    looks: list[int],
    estimand: str | None = None,
) -> list[Moments]:
    """One simulated campaign by the real plan: its moments at each look."""
    p, runs, middle = truth.space, looks[-1], sampling.pilot_runs
    pilot = None
    parts = [sampling.plan(p, seed, "cell", 0, min(middle or runs, runs))]
    found = [truth.look_up(parts[0])]
    if middle and runs > middle:
        strata = len(sampling.shares(p))
        stratum = parts[0]["stratum"].to_numpy()
        failed = OOD_VERDICT.masks["failures"][found[0]]
        missed = OOD_VERDICT.masks["failures_left"][found[0]]
        counts = (np.ones(len(stratum)), failed, missed)
        pilot = Pilot(*(np.bincount(stratum, c, minlength=strata) for c in counts))
        parts.append(sampling.plan(p, seed, "cell", middle, runs, pilot))
        found.append(truth.look_up(parts[1]))
    tally = Tally(truth.manifest(sampling, pilot), estimand)
    plan = pa.concat_tables(parts)
    columns = flags_of(np.concatenate(found))
    columns |= {name: plan[name].to_numpy() for name in tally.columns if name not in columns}
    moments, done = [], 0
    for look in looks:
        tally.add({name: values[done:look] for name, values in columns.items()})
        moments.append(tally.moments())
        done = look
    return moments

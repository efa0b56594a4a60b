"""The contract of a fault model: faults that follow from seed, cell and number of the run alone."""

import numpy as np
import pyarrow as pa

from progip import records
from progip.contracts.broken import Owner
from progip.errors import ProgipError
from progip.fault_models.base import BITS, NO_BIT, FaultModel, Hits, Site, digests

RUNS, IMAGES = 200, 50
SITES = [
    Site("conv", 0, "Conv2d", (4, 6, 6), 144, 15_552, ("Conv2d",)),
    Site("conv", 1, "Conv2d", (4, 3, 3), 36, 3_888, ("Conv2d",)),
    Site("relu", 0, "ReLU", (4, 6, 6), 144, 0, ("ReLU",)),
    Site("fc", 0, "Linear", (10,), 10, 1_440, ("Linear",)),
]
#: of faults that stay in memory
PARAMETERS = [
    Site("conv", 0, "Conv2d", (4, 3, 3, 3), 108, 15_552, ("Conv2d",), parameter="weight"),
    Site("conv", 1, "Conv2d", (4,), 4, 15_552, ("Conv2d",), parameter="bias"),
    Site("fc", 0, "Linear", (10, 144), 1_440, 1_440, ("Linear",), parameter="weight"),
]


def check_fault_model(model: FaultModel, sites: list[Site] | None = None) -> None:
    """Check all that planning, execution and replay rely on.

    ``select`` keeps some of the sites it is given; a plan has the columns of ``records.PLAN``, in
    range; run i's fault follows from (seed, key, i), in whatever part of a plan it is drawn; seeds
    and cells differ; no value of a run is hit twice.

    Args:
        model: with the options to check.
        sites: of some pass; by default calls of a convolution, a linear layer and an activation,
            for faults that stay in memory parameters.

    Raises:
        BrokenContract: saying what does not hold.
    """
    owner = Owner(model)
    owner.check_options()
    stays = model.scope == "round"  # its plans are of maps, which images meet in turn
    images = 1 if stays else IMAGES
    if sites is None:
        sites = PARAMETERS if stays else SITES
    chosen = model.select(list(sites))
    owner.must(bool(chosen), "selects no site")
    keys = [site.key for site in chosen]
    owner.must(
        [site.key for site in sites if site.key in keys] == keys,
        "must select some of the sites it is given, in their order",
    )
    plan = model.plan(chosen, images, 0, "cell", 0, RUNS)
    _check_plan(owner, model, plan, chosen)
    hits = model.hits(chosen, plan, 0, "cell")
    _check_hits(owner, hits, chosen)
    part = model.plan(chosen, images, 0, "cell", 70, 90)
    owner.must(part.equals(plan.slice(70, 20)), "draws a run's fault by where its plan begins")
    alone = digests(model.hits(chosen, part, 0, "cell"), 20)
    owner.must(
        np.array_equal(alone, digests(hits, RUNS)[70:90]),
        "draws a run's hits by the runs that are planned with it",
    )
    for seed, key, what in ((1, "cell", "seed"), (0, "other", "cell")):
        other = model.plan(chosen, images, seed, key, 0, RUNS)
        same = other.equals(plan) and np.array_equal(
            digests(model.hits(chosen, other, seed, key), RUNS), digests(hits, RUNS)
        )
        owner.must(not same or not len(hits.row), f"draws the same faults whatever the {what}")


def _check_plan(owner: Owner, model: FaultModel, plan: pa.Table, sites: list[Site]) -> None:
    owner.must(plan.schema.equals(records.PLAN), "plans other columns than records.PLAN")
    owner.must(plan["run_id"].to_pylist() == list(range(RUNS)), "plans other runs than asked for")
    images = plan["sample_index"].to_numpy()
    owner.must(bool(((images >= 0) & (images < IMAGES)).all()), "plans images that are not there")
    weight = plan["weight"].to_numpy()
    owner.must(bool((np.isfinite(weight) & (weight > 0)).all()), "plans weights not above 0")
    if model.many:
        return
    size = {site.key: site.neurons for site in sites}
    bit = plan["bit"].to_numpy()
    owner.must(bool(((bit >= NO_BIT) & (bit < BITS)).all()), "plans bits outside -1 to 31")
    for layer, call, neuron in zip(
        *(plan[name].to_pylist() for name in ("layer", "call", "neuron")), strict=True
    ):
        owner.must((layer, call) in size, f"plans layer '{layer}', which it did not select")
        owner.must(
            0 <= neuron < size[layer, call], f"plans neuron {neuron} of layer '{layer}', too many"
        )
    try:
        atoms = model.atoms(sites)
    except ProgipError:  # no single bits: it can be drawn uniformly alone
        return
    total = float(atoms.probability.sum())
    owner.must(abs(total - 1) < 1e-9, f"has atoms whose probabilities sum to {total}")


def _check_hits(owner: Owner, hits: Hits, sites: list[Site]) -> None:
    row, site, neuron, mask, clear = hits
    owner.must(bool((np.diff(row) >= 0).all()), "gives hits whose rows do not ascend")
    owner.must(bool(((row >= 0) & (row < RUNS)).all()), "hits runs that are not planned")
    owner.must(bool(((site >= 0) & (site < len(sites))).all()), "hits sites it did not select")
    most = np.array([s.neurons for s in sites])
    owner.must(bool(((neuron >= 0) & (neuron < most[site])).all()), "hits neurons not there")
    owner.must(mask.dtype == np.uint32, f"gives masks of {mask.dtype}, not uint32")
    right = clear is None or (clear.dtype == np.uint32 and clear.shape == mask.shape)
    owner.must(right, "gives bits to clear that are not uint32, one a hit")
    places = set(zip(row.tolist(), site.tolist(), neuron.tolist(), strict=True))
    owner.must(len(places) == len(row), "hits a value of a run twice")

"""What each choice of a correcting protection is worth: accuracy under faults at a rate.

    python benchmarks/correction_choices.py --weights FOLDER --train FILE --test FILE

Six distinct random bits of every hit value flip (Amarnath et al. 2022); all variants meet the same
faults. Prints one row a variant: accuracy with its 95 % interval at every rate; at the rates but
the first, too, how many images with a hit were flagged, how many of the changed values had been
hit, and how many clean images were flagged and values changed.
"""

import argparse
from pathlib import Path
from typing import Any

from common import NETWORKS, load, load_images

# isort: split
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from progip.engine.corrected import CorrectedPipeline
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.reference import ReferenceExecutor
from progip.engine.sites import find_sites
from progip.fault_models.flipped_bits import DistinctBits
from progip.ood_methods.none import NoMethod
from progip.protections.correcting import Correcting
from progip.protections.gradient_statistics import GradientStatistics
from progip.protections.range_restriction import RangeRestriction
from progip.statistics.intervals import proportion_interval


def gradient(**options: Any) -> Correcting:
    return GradientStatistics(name="gradient statistics", **options)


def ranger(**options: Any) -> Correcting:
    return RangeRestriction(name="Ranger", **options)


VARIANTS: dict[str, Correcting | None] = {
    "none": None,
    "Ranger: clip, NaN handed on": ranger(nan_policy="propagate"),
    "Ranger: clip": ranger(),
    "Ranger: zero": ranger(action="zero"),
    "gradient statistics": gradient(),
    "margin=0": gradient(margin=0.0),
    "margin=0.5": gradient(margin=0.5),
    "margin=1": gradient(margin=1.0),
    "threshold=sigma_k k=4": gradient(threshold="sigma_k", k=4.0),
    "threshold=sigma_k k=6": gradient(threshold="sigma_k", k=6.0),
    "threshold=sigma_k k=10": gradient(threshold="sigma_k", k=10.0),
    "granularity=channel": gradient(granularity="channel"),
    "granularity=layer": gradient(granularity="layer"),
    "locate=first_of_run": gradient(locate="first_of_run"),
    "locate=iterative": gradient(locate="iterative"),
    "checksum=pixel": gradient(checksum="pixel"),
    "checksum=none": gradient(checksum="none"),
    "activation_check=literal": gradient(activation_check="literal"),
    "trigger=always": gradient(trigger="always"),
}


def evaluate(
    plain: nn.Module,
    protection: Correcting | None,
    state: dict[str, Tensor],
    images: Tensor,
    labels: np.ndarray,
    rate: float,
    maps: int,
) -> dict[str, Any]:
    """Of ``maps`` fault maps over all images: counts of right classes, flags and corrections."""
    method = NoMethod(name="none")
    pipeline = Pipeline(plain, method, RangeTable())
    if protection is not None:
        network = protection.protect(plain, state)
        pipeline = CorrectedPipeline(network, method, RangeTable(), plain)
    model = DistinctBits(name="six_bits", rate=rate)
    sites = model.select(find_sites(plain, method, images[:2])["first_forward"])
    executor = ReferenceExecutor(
        pipeline, sites, "first_forward", images, 32,
        lambda plan: model.hits(sites, plan, 0, "choices"),
    )  # fmt: skip
    plan = model.plan(sites, len(images), 0, "choices", 0, maps * len(images))
    seen = executor.run(plan)
    right = int((seen["class"] == np.tile(labels, maps)).sum())
    low, high = proportion_interval(right, len(plan))
    found = {"n": len(plan), "right": right, "low": float(low), "high": float(high)}
    if protection is not None:
        hit = seen["hits"] > 0
        found |= {
            "recall": seen["flagged"][hit].mean() if hit.any() else float("nan"),
            "flagged": seen["flagged"].mean(),
            "changed": seen["corrected"].mean(),
            "precision": seen["corrected_hit"].sum() / max(seen["corrected"].sum(), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True, help="folder of weight files")
    parser.add_argument("--train", type=Path, required=True, help=".npz to fit to")
    parser.add_argument("--test", type=Path, required=True, help=".npz to evaluate")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--maps", type=int, default=1)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 1e-5, 1e-3, 1e-2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain, trained = load("resnet20", options.weights)
    assert trained, f"no weights in {options.weights}"
    train = load_images(options.train, 10**9, *NETWORKS["resnet20"][2:])
    images = load_images(options.test, options.images, *NETWORKS["resnet20"][2:])
    labels = np.load(options.test)["labels"][: options.images]
    states: dict[str, dict[str, Tensor]] = {}
    rows = []
    for label in options.only:
        protection = VARIANTS[label]
        state: dict[str, Tensor] = {}
        if protection is not None:
            learnt = (getattr(protection, o, "") for o in ("granularity", "checksum", "coverage"))
            key = " ".join(map(str, (protection.name, *learnt)))
            if key not in states:
                states[key] = protection.fit(
                    plain, [(part, torch.zeros(len(part))) for part in train.split(128)]
                )
            state = states[key]
        row = [label]
        for rate in options.rates:
            found = evaluate(plain, protection, state, images, labels, rate, options.maps)
            share = 100 * found["right"] / found["n"]
            cell = f"{share:.1f} ({100 * found['low']:.1f}, {100 * found['high']:.1f})"
            if protection is not None and rate == 0:
                cell += f"; {100 * found['flagged']:.1f} %, {found['changed']:.2f}"
            elif protection is not None:
                cell += f"; {100 * found['recall']:.1f} %, {100 * found['precision']:.0f} %"
            row.append(cell)
        rows.append(row)
        print(tabulate([row], tablefmt="pipe").splitlines()[-1], flush=True)
    heads = [
        f"rate {rate:g}: accuracy; " + ("flagged, changed" if rate == 0 else "recall, precision")
        for rate in options.rates
    ]
    print(tabulate(rows, ["variant", *heads], tablefmt="pipe"))


if __name__ == "__main__":
    main()

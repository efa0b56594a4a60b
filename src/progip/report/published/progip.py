"""Figures of the publication, beside which measured ones are shown.

Joshi, So, Park, Ko, Jung, Ko, Hwang, Lee, Shrivastava, "ProGIP: Protecting Gradient-based Input
Perturbation Approaches for Out-of-distribution Detection From Soft Errors" (defence slides, tables
"Base Accuracy Overview: Key Metrics", "Summary of Runtime Results" and "Overall Results"; ACM TECS
2025, doi 10.1145/3761796).
The publication gives no intervals: those shown beside its figures are computed from its counts.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import pandas as pd

from progip.analysis.campaign import SETTING as COLUMNS
from progip.analysis.campaign import Campaign
from progip.analysis.kinds import OOD_VERDICT

CITATION = (
    "Joshi et al., ProGIP, tables 'Key Metrics' and 'Overall Results' (ACM TECS 2025, "
    "doi 10.1145/3761796)"
)
SETUP = "DenseNet-BC and ResNet-34, CIFAR-10 / ImageNet-resize"
LABEL = f"published ({SETUP})"

#: the setting that the published figures belong to, by the names of the config groups
SETTING = ("cifar10", "imagenet_resize", "single_bit_flip", "fp32", "all")
RUNS = 2_400_000
ORIGINALLY_CORRECT = 2_004_945
#: what the publication counts as failures
OUTCOME = "ood_verdict"
#: protection: (classification failures, ID/OOD detection failures) left undetected
FAILURES_LEFT = {"none": (4138, 5989), "progip": (17, 111), "ranger": (12, 133)}


#: names of CIFAR-10, whole or a sample
CIFAR10 = ("cifar10", "cifar10_npz")
#: names of the publication's OOD set, whole or a sample; Tiny-ImageNet resized to 32x32
IMAGENET_RESIZE = ("imagenet_resize", "tiny_imagenet_resize", "tiny_imagenet_npz")


class BaseMetrics(NamedTuple):
    """Fractions of 1."""

    id_accuracy: float
    auroc: float
    fpr95: float


#: (network, OOD method) on CIFAR-10 against ImageNet-resize
BASE_METRICS = {
    ("densenet_bc", "odin"): BaseMetrics(0.9519, 0.9840, 0.080),
    ("densenet_bc", "mahalanobis"): BaseMetrics(0.9519, 0.9640, 0.150),
    ("resnet34", "odin"): BaseMetrics(0.9461, 0.9030, 0.392),
    ("resnet34", "mahalanobis"): BaseMetrics(0.9461, 0.9300, 0.352),
}


#: (network, OOD method): runtime of a protection by that of the unprotected detector ("Summary of
#: Runtime Results"; the machine is not named)
RUNTIME = {
    ("densenet_bc", "odin"): {"ranger": 2.6479, "progip": 1.0074},
    ("densenet_bc", "mahalanobis"): {"ranger": 2.5901, "progip": 1.0068},
    ("resnet34", "odin"): {"ranger": 2.4548, "progip": 1.0124},
    ("resnet34", "mahalanobis"): {"ranger": 2.3417, "progip": 1.0056},
}
RUNTIME_MEAN = {"ranger": 2.5086, "progip": 1.0081}


def is_the_setup(
    models: Collection[str],
    ood_methods: Collection[str],
    dataset: str,
    ood_dataset: str,
    fault_model: str,
) -> bool:
    """Whether these are networks, detectors, data and faults of the publication, by their names.

    Samples of its data count: `published_comparison.differences` says what is still different.
    """
    detectors = {(_network(m), o.lower()) for m in models for o in ood_methods}
    return (
        detectors <= BASE_METRICS.keys()
        and dataset.lower() in CIFAR10
        and ood_dataset.lower() in IMAGENET_RESIZE
        and fault_model == SETTING[2]
    )


def runtime(model: str, ood_method: str) -> dict[str, float]:
    """The published runtime of each protection, 1 being the unprotected one; empty without."""
    return RUNTIME.get((_network(model), ood_method.lower()), {})


def base_metrics(model: str, dataset: str, ood_dataset: str, ood_method: str) -> BaseMetrics | None:
    """The published figures of a network and method on its data; None where there are none.

    The names are those of the config groups: any `densenet_bc...` counts as DenseNet-BC.
    """
    if dataset.lower() not in CIFAR10 or ood_dataset.lower() not in IMAGENET_RESIZE:
        return None
    return BASE_METRICS.get((_network(model), ood_method.lower()))


def _network(model: str) -> str:
    name = model.lower().replace("-", "_")
    return (
        "densenet_bc" if name.startswith("densenet_bc") else name.replace("resnet_34", "resnet34")
    )


def overall_counts() -> pd.DataFrame:
    """The published overall table as counts, one row per protection, as `Campaign.cells` has them.

    What the publication leaves out (alarms on harmless faults and on clean inputs) is NaN.
    """
    c_all, d_all = FAILURES_LEFT["none"]
    rows = []
    for protection, (c_left, d_left) in FAILURES_LEFT.items():
        known = {
            "done": RUNS,
            "originally_correct": ORIGINALLY_CORRECT,
            "classification_failures": c_all,
            "detection_failures": d_all,
            "classification_left": c_left,
            "detection_left": d_left,
        }
        known |= {
            "classification_detected": c_all - c_left,
            "detection_detected": d_all - d_left,
            "failures": c_all + d_all,
            "failures_left": c_left + d_left,
            "failures_detected": c_all + d_all - c_left - d_left,
        }
        ends = ("", "_w", "_w2")
        counts = {f"{k}{end}": known.get(k, math.nan) for k in OOD_VERDICT.masks for end in ends}
        rows.append({"protection": protection, "planned": RUNS, **counts})
    return pd.DataFrame(rows)


def shown(campaign: Campaign, setting: tuple[str, ...]) -> bool:
    """Whether published figures accompany a setting: it is theirs, or it was asked for."""
    dataset, ood, faults, *usual = setting
    if campaign.declared.name != OUTCOME or tuple(usual) != SETTING[3:]:
        return False
    if campaign.beside:
        return faults.startswith("single_bit")
    cells = campaign.cells
    here = cells[(cells[list(COLUMNS)] == list(setting)).all(axis=1)]
    return is_the_setup(here["model"].unique(), here["ood_method"].unique(), dataset, ood, faults)

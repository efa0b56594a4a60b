"""What the options of neuron gradient statistics may be."""

import math
from typing import Any

from progip.errors import ProgipError
from progip.options import Readers, check_read
from progip.protections.correcting import check_choices
from progip.protections.neuron_gradients.activation_check import ACTIVATION_CHECKS
from progip.protections.neuron_gradients.checksum import CHECKSUMS, WEIGHTS
from progip.protections.neuron_gradients.differences import LOCATE
from progip.protections.neuron_gradients.running import GRANULARITIES

CHOICES = {
    "trigger": ("detected", "always"),
    "threshold": ("max_clean", "sigma_k", "alpha"),
    "granularity": GRANULARITIES,
    "locate": LOCATE,
    "checksum": CHECKSUMS,
    "checksum_weights": WEIGHTS,
    "activation_check": ACTIVATION_CHECKS,
}
_WITH_CHECKSUM = tuple(name for name in CHECKSUMS if name != "none")
READERS: Readers = {
    "margin": ("threshold", ("max_clean",)),
    "k": ("threshold", ("sigma_k",)),
    "alpha": ("threshold", ("alpha",)),
    "rounds": ("locate", ("iterative",)),
    "checksum_margin": ("checksum", _WITH_CHECKSUM),
    "checksum_weights": ("checksum", _WITH_CHECKSUM),
}


def check_options(protection: Any) -> None:
    """Raise ProgipError where an option is wrong, or can have no effect."""
    owner = f"protection '{protection.name}'"
    check_choices(protection, CHOICES)
    rules = {
        "margin": (0 <= protection.margin < math.inf, "0 or more"),
        "k": (0 < protection.k < math.inf, "above 0"),
        "alpha": (0 < protection.alpha < 1, "in (0, 1)"),
        "rounds": (protection.rounds >= 1, "at least 1"),
        "checksum_margin": (0 <= protection.checksum_margin < math.inf, "0 or more"),
    }
    for key, (holds, wanted) in rules.items():
        if not holds:
            raise ProgipError(f"{owner}: {key} must be {wanted}, not {getattr(protection, key)}")
    check_read(protection, owner, READERS)
    detectors = {protection.checksum, protection.activation_check} - {"none"}
    if protection.trigger == "detected" and not detectors:
        raise ProgipError(
            f"{owner}: trigger=detected needs a detector; switch on checksum or "
            "activation_check, or take trigger=always"
        )

"""What weighted termination asks of a cell, and what it adds to its rows."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from progip.campaign.settings import CellSettings
from progip.errors import ProgipError
from progip.outcomes.base import Outcome

OPTION = "sampling.roulette"


def check_roulette(settings: CellSettings) -> None:
    """Refuse cells in which runs cannot be ended, or whose rates could not be estimated.

    Raises:
        ProgipError: naming the option that does not go with it.
    """
    p, outcome = settings.sampling.roulette, settings.outcome
    reasons = {
        f"executor={settings.executor} executes every run whole; add executor=incremental": (
            settings.executor != "incremental"
        ),
        f"fault_model '{settings.fault_model.name}' hits many values at once": (
            settings.fault_model.many or settings.fault_model.scope != "row"
        ),
        f"protection '{settings.protection.name}' corrects values, so runs are executed whole": (
            settings.subject.correction is not None
        ),
        f"protection '{settings.protection.name}' measures runs, ended ones are unknown": (
            bool(settings.protection.measures)
        ),
        f"number_format '{settings.subject.number_format.name}' has metadata": (
            bool(settings.subject.number_format.metadata_fields)
        ),
        f"outcome '{outcome.name}' reports means of {len(outcome.declared.measures)} measures, "
        "which ended runs do not have": bool(outcome.declared.measures),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ProgipError(f"{OPTION}={p:g}: {reason}; leave {OPTION} out")


def check_clean(outcome: Outcome, flags: Mapping[str, NDArray]) -> None:
    """Refuse outcomes that a fault-free execution can have: ended runs count as that.

    Args:
        flags: what the outcome says of images without a fault.

    Raises:
        ProgipError: naming the event.
    """
    for event in outcome.declared.events:
        if np.any(flags[event.flag]):
            raise ProgipError(
                f"{OPTION}: outcome '{outcome.name}' has {event.flag} without any fault, so ended "
                f"runs would not be harmless; leave {OPTION} out"
            )


def check_base(
    outcome: Outcome, flags: Mapping[str, NDArray], clean: Mapping[str, NDArray]
) -> None:
    """Refuse outcomes that count runs by what the fault did.

    Args:
        flags, clean: what the outcome says of runs, and of the same without their faults.

    Raises:
        ProgipError: naming the column.
    """
    declared = outcome.declared
    for base in filter(None, (declared.base, *(event.base for event in declared.events))):
        if (flags[base] != clean[base]).any():
            raise ProgipError(
                f"{OPTION}: outcome '{outcome.name}' counts runs by {base}, which a fault can "
                f"change; leave {OPTION} out"
            )

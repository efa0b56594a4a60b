"""What a component of your own must hold, checked by one call, as by ``check_estimator`` elsewhere.

``check_ood_method(MyMethod(...))`` returns None, or raises ``BrokenContract`` and says why.
"""

from progip.contracts.broken import BrokenContract
from progip.contracts.condition import check_condition
from progip.contracts.fault_model import check_fault_model
from progip.contracts.number_format import check_number_format
from progip.contracts.ood_method import check_ood_method
from progip.contracts.outcome import check_outcome
from progip.contracts.probe import check_probe
from progip.contracts.protection import check_protection

__all__ = [
    "BrokenContract",
    "check_condition",
    "check_fault_model",
    "check_number_format",
    "check_ood_method",
    "check_outcome",
    "check_probe",
    "check_protection",
]

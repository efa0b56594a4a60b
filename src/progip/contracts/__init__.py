"""What a component of your own must hold, checked by one call, as by ``check_estimator`` elsewhere.

``check_ood_method(MyMethod(...))`` returns None, or raises ``BrokenContract`` and says why.
"""

from progip.contracts.broken import BrokenContract
from progip.contracts.fault_model import check_fault_model
from progip.contracts.ood_method import check_ood_method
from progip.contracts.protection import check_protection

__all__ = ["BrokenContract", "check_fault_model", "check_ood_method", "check_protection"]

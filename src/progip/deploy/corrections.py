"""What a correcting protection found in the forward passes of a deployed detector."""

from torch import Tensor, nn

from progip.errors import ProgipError
from progip.passes import is_forward
from progip.protections.base import Protection
from progip.protections.correcting import Correcting, learnt_by, protected_evidence


class CorrectionsSeen:
    """Gathers ``flagged`` over the forward passes of one detection.

    Attributes:
        watched: whether the protection corrects; otherwise there is nothing to gather.

    Raises:
        ProgipError: the protection corrects, and the network is not the one that it made.
    """

    def __init__(self, network: nn.Module, protection: Protection) -> None:
        self.watched = isinstance(protection, Correcting)
        if isinstance(protection, Correcting) and learnt_by(network).protection != protection:
            raise ProgipError(
                f"protection '{protection.name}': the network was protected by "
                f"'{learnt_by(network).protection.name}' or with other options"
            )
        self._network = network
        self._current = ""
        self._flagged: Tensor | None = None

    def begin(self) -> None:
        """A detection begins."""
        self._current, self._flagged = "", None

    def enter(self, name: str) -> None:
        """The detection enters a pass."""
        self.leave()
        self._current = name

    def leave(self) -> None:
        """The current pass is done."""
        if self.watched and is_forward(self._current):
            flagged = protected_evidence(self._network)["flagged"]
            self._flagged = flagged if self._flagged is None else self._flagged | flagged
        self._current = ""

    def evidence(self) -> dict[str, Tensor]:
        """``flagged`` (B,) bool, where the protection corrects."""
        return {} if self._flagged is None else {"flagged": self._flagged}

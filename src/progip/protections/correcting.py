"""What a correcting protection is: a copy of the network that mends its own values as it runs."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from progip.errors import ProgipError
from progip.models.calls import Call
from progip.models.loading import weights_fingerprint
from progip.protections.base import Evidence, Judgement, Protection, first_alarm

State = Mapping[str, Tensor]


@dataclass(kw_only=True)
class Correcting(Protection):
    """One correcting protection; the dataclass fields of a subclass are the options of its YAML.

    It alarms where it found an error to correct (column ``flagged``).
    """

    watches: ClassVar[tuple[str, ...]] = ()  # of observations: it reports by ``flagged``

    @abstractmethod
    def fit(
        self, network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
    ) -> dict[str, Tensor]:
        """Learn from clean training images in one pass.

        Args:
            network: in evaluation mode; left as it was.
            batches: (images, labels): (B, channels, height, width), normalised as the network gets
                them, and (B,) int64.

        Returns:
            all that ``protect`` needs, by name.

        Raises:
            ProgipError: there are too few images, or clean values are not finite.
        """

    @abstractmethod
    def protect(self, network: nn.Module, state: State) -> nn.Module:
        """A copy of the network with corrections in it, made with ``shared_copy``.

        It shares the weights and has the same module names, so faults find the same sites. A row
        depends on its own image alone, bit for bit; no Python branch depends on values but the one
        in ``Record.mend``; the copy can be differentiated and traced where the network can.
        Corrections are forward hooks, behind any that an executor prepends: a fault in a module's
        output comes first. They report to the ``Record`` of the copy.
        """

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        return {}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        return first_alarm([("correction", np.asarray(evidence["flagged"]) != 0)])


#: values (m, ...) and which rows they are -> what becomes of them, and which changed (bool);
#: rows that are not wanted stay as they are, and their gradient, to the bit
Mend = Callable[[Tensor, Any], tuple[Tensor, Tensor]]


@dataclass
class Record:
    """What the corrections of the last forward pass of n rows did.

    Attributes:
        calls: how many calls of modules are corrected, for manifests; ``protect`` sets it.
        rows: n.
        flagged: (n,) bool; a detector fired, or a value was corrected.
        zeroed: (n,) int64; how many values were corrected, of all sites together.
        masks: by call, (n, *shape of one row) bool, the values corrected in its output; empty
            unless ``keep_masks``.
    """

    calls: int | None = None
    rows: int = 0
    flagged: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    zeroed: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    masks: dict[Call, Tensor] = field(default_factory=dict)
    keep_masks: bool = False

    def start(self, images: Tensor) -> None:
        """Forget the last forward pass; called at the start of the next."""
        self.rows = len(images)
        self.flagged = torch.zeros(self.rows, dtype=torch.bool, device=images.device)
        self.zeroed = torch.zeros(self.rows, dtype=torch.int64, device=images.device)
        self.masks = {}

    def by_row(self, tensor: Tensor) -> Tensor:
        """(n, ...), also where a token network merged windows into the batch axis."""
        if tensor.shape[0] == self.rows:
            return tensor
        return tensor.unflatten(0, (self.rows, -1))

    def flag(self, rows: Tensor) -> None:
        """A detector fired in these rows, (n,) bool."""
        self.flagged = self.flagged | rows

    def mend(self, call: Call, output: Tensor, wanted: Tensor | None, mended: Mend) -> Any:
        """Correct rows of a call's output, and note what changed.

        Args:
            wanted: (n,) bool, the rows to look at; the others cost nothing. None for all.
            mended: what becomes of values.

        Returns:
            what replaces the output; None where nothing does.
        """
        values = self.by_row(output)
        # a traced graph must not depend on values: it looks at all rows, of which ``mended`` leaves
        # those that are not wanted as they are
        if wanted is None or get_proxy_mode() is not None:
            result, changed = mended(values, slice(None))
            self._note(_counted(changed))
            if self.keep_masks:
                self.masks[call] = changed
            return result.reshape(output.shape)
        rows = wanted.nonzero()[:, 0]
        if self.keep_masks:
            self.masks[call] = torch.zeros_like(values, dtype=torch.bool)
        if not len(rows):
            return None
        part, changed = mended(values[rows], rows)
        count = torch.zeros_like(self.zeroed)
        count[rows] = _counted(changed)
        self._note(count)
        if self.keep_masks:
            self.masks[call][rows] = changed
        result = values.clone()  # index_copy would change the memory order, and so the kernels
        result[rows] = part
        return result.reshape(output.shape)

    def _note(self, count: Tensor) -> None:
        """So many values changed in each row, (n,) int64."""
        self.zeroed = self.zeroed + count
        self.flag(count > 0)


def _counted(changed: Tensor) -> Tensor:
    """(n,) int64: how many are set in each row of (n, ...)."""
    return changed.count_nonzero(tuple(range(1, changed.dim())))


def shared_copy(network: nn.Module) -> tuple[nn.Module, Record]:
    """A copy with hooks of its own that shares weights and buffers, and its fresh record.

    Modules of the copy never work in place: a correction must see what went into an activation.
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    result = copy.deepcopy(network, shared)
    for module in result.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # a bool, as just checked
    record = Record()
    result.correction_record = record  # type: ignore[assignment]  # no submodule
    return result, record


@dataclass(frozen=True)
class Learnt:
    """What a protected network was made with.

    Attributes:
        protection: that made it.
        state: what it had learnt.
        weights: fingerprint of the network without it.
    """

    protection: Correcting
    state: State
    weights: str


def protected_with(network: nn.Module, protection: Correcting, state: State) -> nn.Module:
    """``protection.protect``, and a note in the copy of what it was made with."""
    result = protection.protect(network, state)
    learnt = Learnt(protection, state, weights_fingerprint(network))
    result.correction_learnt = learnt  # type: ignore[assignment]  # no submodule
    return result


def learnt_by(network: nn.Module) -> Learnt:
    """What a network of ``protected_with`` was made with. Raises ProgipError for any other."""
    learnt = getattr(network, "correction_learnt", None)
    if not isinstance(learnt, Learnt):
        raise ProgipError(
            f"{type(network).__name__} has no correcting protection in it; "
            "progip.deploy.protecting.protected_network makes one that has"
        )
    return learnt


def _record(network: nn.Module) -> Record:
    record = getattr(network, "correction_record", None)
    if not isinstance(record, Record):
        raise ProgipError("this network has no correcting protection; see Correcting.protect")
    return record


def corrected_calls(network: nn.Module) -> int | None:
    """How many calls of modules a protected network corrects; None where it does not say."""
    return _record(network).calls


def protected_evidence(network: nn.Module) -> dict[str, Tensor]:
    """What was found in the last forward pass of a protected network, a row each image.

    Returns:
        ``flagged`` (n,) bool and ``zeroed`` (n,) int64, see ``Record``.
    """
    record = _record(network)
    return {"flagged": record.flagged, "zeroed": record.zeroed}


def keep_masks(network: nn.Module, keep: bool = True) -> None:
    """Whether the forward passes to come keep which values they correct; that takes memory."""
    _record(network).keep_masks = keep


def corrected_masks(network: nn.Module) -> dict[Call, Tensor]:
    """Which values the last forward pass corrected: (n, *shape) bool by corrected call."""
    return _record(network).masks


def key_of(call: Call, quantity: str) -> str:
    """The name of one quantity of one call in a state."""
    return f"{call[0]}#{call[1]}/{quantity}"


def by_call(state: State, quantity: str, network: nn.Module, name: str) -> dict[Call, Tensor]:
    """One quantity of all calls that have it in a state.

    Raises:
        ProgipError: the state was learnt from another network.
    """
    found: dict[Call, Tensor] = {}
    for key, tensor in state.items():
        call, _, last = key.rpartition("/")
        if last == quantity:
            layer, _, number = call.rpartition("#")
            found[layer, int(number)] = tensor
    unknown = {layer for layer, _ in found} - {layer for layer, _ in network.named_modules()}
    if unknown:
        raise ProgipError(
            f"protection '{name}': its state was learnt from another network; this one has no "
            f"layer '{min(unknown)}'"
        )
    return found


def check_choices(protection: Correcting, choices: Mapping[str, Collection[str]]) -> None:
    """Refuse options of a protection that are not one of their choices.

    Raises:
        ProgipError: naming the option.
    """
    for key, known in choices.items():
        value = getattr(protection, key)
        if value not in known:
            raise ProgipError(
                f"protection '{protection.name}': {key}={value!r} is not one of {', '.join(known)}"
            )


def check_fitted(images: int, name: str, needed: int = 1) -> None:
    """Refuse a fit from fewer training images than are ``needed``.

    Raises:
        ProgipError: naming the protection.
    """
    if images < needed:
        raise ProgipError(
            f"protection '{name}': needs at least {needed} training image"
            f"{'s' * (needed > 1)}, got {images}"
        )

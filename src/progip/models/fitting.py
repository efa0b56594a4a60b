"""Whether a file's tensors are a network's weights: their names, and what kind of numbers."""

import logging
from collections.abc import Collection, Mapping

import torch

from progip.errors import ProgipError

log = logging.getLogger(__name__)

#: a counter that files written before PyTorch 0.4.1 lack and that evaluation never reads
COUNTER = "num_batches_tracked"


def without_shared_prefix(
    given: Mapping[str, torch.Tensor], own: Collection[str]
) -> dict[str, torch.Tensor]:
    """The same tensors without leading parts of their names that all share and the network lacks.

    Wrappers leave them: ``module.`` (nn.DataParallel), ``_orig_mod.`` (torch.compile), the name of
    a Lightning module's attribute (``model.``, ``net.``), or several. Names that are the network's
    as they are stay.

    Args:
        own: the names in the network's state dict.
    """
    names = [key.split(".") for key in given]
    shared = 0
    while names and all(len(parts) > shared + 1 for parts in names):
        if len({parts[shared] for parts in names}) > 1:
            break
        shared += 1
    wanted = {key for key in own if not key.endswith(COUNTER)}
    candidates = [
        dict(zip((".".join(parts[n:]) for parts in names), given.values(), strict=True))
        for n in range(shared + 1)
    ]
    # the first of the best: nothing is taken off in vain
    return max(candidates, key=lambda candidate: len(wanted & candidate.keys()))


def check_kinds(
    given: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], where: str
) -> None:
    """Refuse numbers of another kind: a quantised weight is not the weight it stands for.

    Floating-point numbers of any width fit any floating-point tensor (a log line says so), integers
    and truth values only where every value stays what it is.

    Args:
        given: tensors of a file; own: those of the network, by the same names.
        where: the file, for messages.

    Raises:
        ProgipError: naming the first such tensor, its type and that of the network's.
    """
    shared = [key for key in own if key in given and not key.endswith(COUNTER)]
    wrong = [key for key in shared if not _fits(given[key], own[key])]
    if wrong:
        key = wrong[0]
        more = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        raise ProgipError(
            f"{where}: '{key}' holds {_type(given[key])} values, the network has "
            f"{_type(own[key])} there{more}. Quantised weights are of no use without their scales; "
            "save the state dict of the floating-point network"
        )
    floating = {_type(given[key]) for key in shared if given[key].dtype != own[key].dtype}
    if floating:
        to = {_type(own[key]) for key in shared if given[key].dtype != own[key].dtype}
        log.info("%s: %s values, used as %s", where, *map(", ".join, map(sorted, (floating, to))))


def _fits(given: torch.Tensor, own: torch.Tensor) -> bool:
    if given.layout != own.layout or given.is_quantized != own.is_quantized:
        return False
    if own.is_floating_point() or own.is_complex():
        return given.is_floating_point() == own.is_floating_point() and (
            given.is_complex() == own.is_complex()
        )
    return torch.equal(given.to(own.dtype).to(given.dtype), given)


def _type(tensor: torch.Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    return name if tensor.layout == torch.strided else f"sparse {name}"

"""A correcting protection made ready: what it learnt is kept by content hash."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from progip.errors import ProgipError
from progip.protections.bounded.base import BoundedActivation
from progip.protections.correcting import Correcting, protected_with
from progip.storage.content_cache import cache_folder, content_key
from progip.storage.whole_files import Checkpoint, write_whole

log = logging.getLogger(__name__)


def corrected_network(
    network: nn.Module,
    correction: Correcting,
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    example: Tensor,
    content: dict[str, Any],
) -> nn.Module:
    """The network with the protection in it, fitted or with what an earlier fit learnt.

    Processes that need the same fit at once share it: one computes, the others wait.

    Args:
        batches: (images, labels) of ID training data, images normalised and on the device;
            consumed only when fitting.
        example: of those images.
        content: what the fit depends on, beside this machine.

    Raises:
        ProgipError: as ``Correcting.fit`` does, and where the cache cannot be written.
    """
    folder = cache_folder("corrections")
    path = folder / f"{content_key(content, example, len(example))}.safetensors"
    with FileLock(path.with_suffix(".lock")):
        try:
            state = load_file(path, device=str(example.device))
            log.info("protection %s: fit loaded from %s", correction.name, path)
        except (FileNotFoundError, SafetensorError):  # a damaged file is made anew
            log.info("protection %s: fitted to the training images", correction.name)
            state = _fitted(network, correction, batches(), path.with_suffix(".checkpoint.pt"))
            tensors = {name: t.contiguous().cpu() for name, t in state.items()}
            try:
                write_whole(path, lambda draft: save_file(tensors, draft))
            except (ProgipError, SafetensorError) as error:
                raise ProgipError(
                    f"cannot write the cache folder {folder} ({error}); make room, or set "
                    "PROGIP_CACHE to another folder"
                ) from error
    return protected_with(network, correction, state)


def _fitted(
    network: nn.Module,
    correction: Correcting,
    batches: Iterator[tuple[Tensor, Tensor]],
    checkpoint: Path,
) -> dict[str, Tensor]:
    """What the protection learns; a long search goes on where a killed one stopped."""
    if not isinstance(correction, BoundedActivation):
        return correction.fit(network, batches)
    kept = Checkpoint(checkpoint)
    state = correction.fit(network, batches, kept)
    kept.remove()
    return state

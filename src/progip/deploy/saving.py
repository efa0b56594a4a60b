"""A guarded detector as one file: what was learnt and calibrated, without the network's weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from progip.campaign.settings_identity import identity
from progip.deploy.detector import GuardedDetector
from progip.deploy.protecting import protected_again
from progip.engine.ranges import RangeTable
from progip.errors import ProgipError
from progip.models.loading import weights_fingerprint
from progip.ood_methods.base import OODMethod
from progip.probes import probes_named
from progip.probes.needs import probes_for
from progip.protections.base import Protection
from progip.protections.correcting import Correcting, learnt_by
from progip.protections.supervised import Supervised

KEY = "guarded_detector"
SCHEMA_VERSION = 1
PROTECTION = "protection/"  # before the names of what a protection learnt
PROBE = "probe/{}/"  # before the names of what a probe learnt


def save_detector(detector: GuardedDetector, path: str | Path) -> None:
    """Write thresholds, ranges and what the OOD method learnt to a .safetensors file.

    Raises:
        ProgipError: the file cannot be written.
    """
    content = {
        "schema_version": SCHEMA_VERSION,
        **_belongs_to(detector.network, detector.method, detector.protection),
        "thresholds": detector.thresholds,
        "ood_threshold": detector.ood_threshold,
        "ranges": detector.ranges.to_json(),
        "probes": [probe.label for probe in detector.probes],
    }
    state = {name: tensor.contiguous().cpu() for name, tensor in detector.method.state().items()}
    learnt: Mapping[str, Tensor] = {}
    if isinstance(detector.protection, Correcting):
        learnt = learnt_by(detector.network).state
    elif isinstance(detector.protection, Supervised):
        learnt = detector.protection.state()
    state |= {PROTECTION + name: tensor.contiguous().cpu() for name, tensor in learnt.items()}
    for probe in detector.probes:
        state |= {
            PROBE.format(probe.name) + name: tensor.contiguous().cpu()
            for name, tensor in probe.state().items()
        }
    try:
        save_file(state, path, {KEY: json.dumps(content)})
    except (OSError, SafetensorError) as error:
        raise ProgipError(f"cannot write {path} ({error})") from error


def load_detector(
    path: str | Path,
    network: nn.Module,
    method: OODMethod,
    protection: Protection,
    range_checks: str = "fused",
) -> GuardedDetector:
    """The detector of a file that ``save_detector`` wrote, around the same network.

    Args:
        network: with the weights it was calibrated with, in evaluation mode, parameters frozen;
            without a correcting protection, which is put into it here.
        method, protection: with the options it was calibrated with; the method is fitted here.
        range_checks: see ``GuardedDetector``.

    Raises:
        ProgipError: the file is not one, or the weights or an option are others than those it was
            calibrated with.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads((file.metadata() or {})[KEY])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ProgipError(f"{path} holds no guarded detector ({error})") from error
    if content["schema_version"] != SCHEMA_VERSION:
        raise ProgipError(
            f"{path} has schema version {content['schema_version']}, this program reads "
            f"{SCHEMA_VERSION}; calibrate again"
        )
    for part, mine in _belongs_to(network, method, protection).items():
        if content[part] != mine:
            raise ProgipError(
                f"{path} was calibrated with {part} {_short(content[part], mine)}; give the same, "
                "or calibrate again"
            )
    learnt = _taken(state, PROTECTION)
    # files of older versions know no options of probes
    made = probes_named(content["probes"]) if "probes" in content else None
    probes = probes_for(protection.watches, method.evidence, made)
    for probe in probes:
        probe.load_state(_taken(state, PROBE.format(probe.name)))
    if isinstance(protection, Correcting):
        network = protected_again(network, protection, learnt)
    elif isinstance(protection, Supervised):
        protection.load_state(learnt)
    method.load_state(state)
    return GuardedDetector(
        network,
        method,
        protection,
        thresholds=content["thresholds"],
        ood_threshold=content["ood_threshold"],
        ranges=RangeTable.from_json(content["ranges"]),
        range_checks=range_checks,
        probes=probes,
    )


def _taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take out of ``state`` what stands under a prefix, named without it."""
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state.pop(name) for name in names}


def _belongs_to(network: nn.Module, method: OODMethod, protection: Protection) -> dict[str, Any]:
    """What must be the same when the file is loaded, as JSON gives it back."""
    corrected = hasattr(network, "correction_learnt")
    weights = learnt_by(network).weights if corrected else weights_fingerprint(network)
    content = {
        "weights": weights,
        "ood_method": {"class": type(method).__name__, **identity(method)},
        "protection": {"class": type(protection).__name__, **identity(protection)},
    }
    return dict(json.loads(json.dumps(content)))


def _short(theirs: Any, mine: Any) -> str:
    """What differs: theirs, not mine."""
    if not isinstance(theirs, dict):
        return f"{theirs[:12]}, not {mine[:12]}"
    different = [key for key in theirs if theirs[key] != mine.get(key)]
    return ", ".join(f"{key}={theirs[key]!r}, not {mine.get(key)!r}" for key in different)

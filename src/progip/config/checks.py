"""Values that a configuration accepts by their type, but that can only be mistakes."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig

from progip.config.names import NO_DEFAULTS
from progip.errors import ProgipError

#: options that running a campaign does not read, and what does
READ_ELSEWHERE = {"model.recipe": "python -m progip train"}


def check_values(component: Any, group: str) -> None:
    """Refuse options that are empty, not finite, or names that cannot be part of a folder's.

    Args:
        component: a dataclass, made from the YAML of a group.

    Raises:
        ProgipError: naming the option.
    """
    for field in dataclasses.fields(component):
        value, key = getattr(component, field.name), f"{group}.{field.name}"
        if field.name == "name":
            _check_name(str(value), key)
        elif value == "" and field.default != "":
            raise ProgipError(f"{key} is empty; give a value, or null where it may be left out")
        elif any(not math.isfinite(number) for number in _numbers(value)):
            raise ProgipError(f"{key}={value}: every number must be finite")


def check_cell(cfg: DictConfig) -> None:
    """Refuse folders that are empty or lead elsewhere, and counts below zero.

    Raises:
        ProgipError: naming the key.
    """
    for key in ("name", "cell"):
        path = PurePath(str(cfg[key]))
        if not str(cfg[key]).strip() or path.is_absolute() or ".." in path.parts:
            raise ProgipError(
                f"{key}='{cfg[key]}': give a folder below outputs, without '..' and not empty"
            )
    if not str(cfg.outputs).strip():
        raise ProgipError("outputs is empty; give the folder that results go to")
    for key, what in (("threads", "0 leaves torch's default"), ("part", "0 is the only process")):
        if cfg[key] < 0:
            raise ProgipError(f"{key}={cfg[key]}: must not be negative; {what}")


def check_defaults(cfg: DictConfig) -> None:
    """Refuse a campaign file that does not stand on conf/config.yaml. Raises ProgipError."""
    if "model" not in cfg:
        raise ProgipError(NO_DEFAULTS)


def check_overrides(overrides: Iterable[str], sampling: str = "") -> None:
    """Refuse what the command line sets although a campaign does not read it.

    Args:
        overrides: as typed: ``model.recipe.epochs=3``.
        sampling: name of the sampling plan.

    Raises:
        ProgipError: naming the option, and the command that reads it.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        if key == "runs" and sampling == "per_layer":
            raise ProgipError(
                "runs has no effect with sampling=per_layer, whose size is runs_per_layer times "
                "the number of layers; give sampling.runs_per_layer=N"
            )
        for prefix, reader in READ_ELSEWHERE.items():
            if key == prefix or key.startswith(f"{prefix}."):
                raise ProgipError(
                    f"{key} has no effect on a campaign: only `{reader}` reads it; leave it out"
                )


def _check_name(name: str, key: str) -> None:
    if not name.strip() or name in (".", "..") or set(name) & set("/\\"):
        raise ProgipError(
            f"{key}='{name}': a name is part of a folder's; it must not be empty or hold / or \\"
        )


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)

"""From composed YAML to plain dataclasses."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from progip.campaign.settings import CellSettings, SubjectSettings
from progip.campaign.sizing import Sizing
from progip.config.checks import check_cell, check_values
from progip.config.names import existing, wrong_value
from progip.config.schema import GROUPS, PARTS, Schema
from progip.errors import ProgipError
from progip.probes import probes_named
from progip.protections.correcting import Correcting

T = TypeVar("T")


def build(node: Any, base: type[T], group: str) -> T:
    """The component that a group's YAML describes: ``_target_`` names its class, keys its fields.

    Raises:
        ProgipError: naming the group and the key, and what exists.
    """
    options = dict(OmegaConf.to_container(node, resolve=True)) if node else {}  # type: ignore[arg-type]
    target = options.pop("_target_", None)
    if not isinstance(target, str):
        raise ProgipError(f"{group}: its YAML names no class; write '_target_: module.Class'")
    cls = _locate(target, group)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        raise ProgipError(f"{group}: {target} is not a {base.__name__}")
    _check_keys(options, [f.name for f in dataclasses.fields(cls)], group)  # type: ignore[arg-type]
    for part, kind in PARTS.get(base, {}).items():
        if part in options:
            given = options[part]
            options[part] = (
                build(OmegaConf.create(given), kind, f"{group}.{part}") if given else None
            )
    try:
        merged = OmegaConf.merge(OmegaConf.structured(cls), options)
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ProgipError(f"{group}.{min(missing)}: no value given, and it has no default")
        made: T = OmegaConf.to_object(merged)  # type: ignore[assignment]
        check_values(made, group)
        return made
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        where = f"{group}.{key}" if key else group
        raise ProgipError(f"{where}: {wrong_value(error, options.get(str(key)))}") from error


def cell_settings(cfg: DictConfig) -> CellSettings:
    """The typed settings of one composed cell.

    Raises:
        ProgipError: for a key that does not exist, a wrong type or value, by its name.
    """
    names = [f.name for f in dataclasses.fields(Schema)]
    for key in map(str, cfg):
        if key not in names:
            raise ProgipError(f"{key}: no such key. {existing(key, names)}")
    parts: dict[str, Any] = {
        group: build(cfg[group], base, group) for group, base in GROUPS.items()
    }
    check_cell(cfg)
    protection = parts["protection"]
    subject = SubjectSettings(
        model=parts["model"],
        dataset=parts["dataset"],
        ood_dataset=parts["ood_dataset"],
        ood_method=parts["ood_method"],
        batch_size=cfg.batch_size,
        golden_memory=cfg.golden_memory,
        channels_last=cfg.channels_last,
        device=cfg.device,
        correction=protection if isinstance(protection, Correcting) else None,
        number_format=parts["number_format"],
        probes=probes_named(list(cfg.probes)),
    )
    return CellSettings(
        subject=subject,
        population=cfg.population,
        fault_model=parts["fault_model"],
        fault_pass=cfg.fault_pass.name,
        protection=protection,
        outcome=parts["outcome"],
        condition=parts["condition"],
        runs=cfg.runs,
        seed=cfg.seed,
        folder=cell_folder(cfg),
        shard_size=cfg.shard_size,
        threads=cfg.threads,
        executor=cfg.executor,
        self_check=cfg.self_check,
        part=cfg.part,
        sampling=parts["sampling"],
        stopping=parts["stopping"],
        sizing=_sizing(cfg.sizing),
    )


def cell_folder(cfg: DictConfig) -> Path:
    """Where the rows of a composed cell go."""
    return Path(cfg.outputs) / cfg.name / cfg.cell


def _sizing(cfg: DictConfig) -> Sizing:
    """The typed sizes, of a composed cell or of the plain mapping that a manifest keeps."""
    return OmegaConf.to_object(OmegaConf.merge(Sizing, cfg))  # type: ignore[return-value]


def _locate(target: str, group: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ProgipError(f"{group}: cannot find class {target} ({error})") from error


def _check_keys(options: dict[str, Any], fields: list[str], group: str) -> None:
    for key in options:
        if key not in fields:
            raise ProgipError(f"{group}.{key}: no such option. {existing(key, fields)}")

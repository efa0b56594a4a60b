"""From composed YAML to plain dataclasses; the only module below the entry points to know Hydra."""

import dataclasses
import difflib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from progip.campaign.settings import CellSettings, SubjectSettings
from progip.campaign.sizing import Sizing
from progip.config_checks import check_cell, check_values
from progip.datasets.base import Dataset
from progip.errors import ProgipError
from progip.fault_models.base import FaultModel
from progip.models.base import Model
from progip.ood_methods.base import OODMethod
from progip.protections.base import Protection
from progip.protections.correcting import Correcting
from progip.sampling.base import SamplingPlan
from progip.stopping.base import StoppingRule

T = TypeVar("T")

GROUPS: dict[str, type] = {
    "model": Model,
    "dataset": Dataset,
    "ood_dataset": Dataset,
    "ood_method": OODMethod,
    "protection": Protection,
    "fault_model": FaultModel,
    "sampling": SamplingPlan,
    "stopping": StoppingRule,
}


@dataclass
class FaultPass:
    """The pass a fault hits (``conf/pass``)."""

    name: str = MISSING


@dataclass
class Schema:
    """Every top-level key with its type; a wrong key or type is refused by name.

    Groups are checked against the dataclass their ``_target_`` names, in ``build``.
    """

    name: str = MISSING
    runs: int = MISSING
    seed: int = MISSING
    population: str = MISSING
    batch_size: int = MISSING
    shard_size: int = MISSING
    device: str = MISSING
    threads: int = MISSING
    executor: str = MISSING
    golden_memory: int = MISSING
    channels_last: bool = MISSING
    self_check: float = MISSING
    part: int = MISSING
    outputs: str = MISSING
    cell: str = MISSING
    model: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    ood_dataset: dict[str, Any] = field(default_factory=dict)
    ood_method: dict[str, Any] = field(default_factory=dict)
    protection: dict[str, Any] = field(default_factory=dict)
    fault_model: dict[str, Any] = field(default_factory=dict)
    fault_pass: FaultPass = field(default_factory=FaultPass)
    sampling: dict[str, Any] = field(default_factory=dict)
    stopping: dict[str, Any] = field(default_factory=dict)
    sizing: Sizing = field(default_factory=Sizing)


def register() -> None:
    """Make the schema known to Hydra under the name ``schema``."""
    ConfigStore.instance().store(name="schema", node=Schema)


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
        raise ProgipError(f"{where}: {str(error).splitlines()[0]}") from error


def cell_settings(cfg: DictConfig) -> CellSettings:
    """The typed settings of one composed cell.

    Raises:
        ProgipError: for a key that does not exist, a wrong type or value, by its name.
    """
    names = [f.name for f in dataclasses.fields(Schema)]
    for key in map(str, cfg):
        if key not in names:
            raise ProgipError(f"{key}: no such key. {_existing(key, names)}")
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
    )
    return CellSettings(
        subject=subject,
        population=cfg.population,
        fault_model=parts["fault_model"],
        fault_pass=cfg.fault_pass.name,
        protection=protection,
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
        sizing=OmegaConf.to_object(cfg.sizing),  # type: ignore[arg-type]
    )


def cell_folder(cfg: DictConfig) -> Path:
    """Where the rows of a composed cell go."""
    return Path(cfg.outputs) / cfg.name / cfg.cell


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation replaced, for manifests."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def composed(
    overrides: list[str],
    folder: str | Path = "conf",
    campaign: str | None = None,
    primary: str = "config",
) -> DictConfig:
    """The configuration that run.py would see, composed from the YAML files in ``folder``.

    Args:
        primary: the file to start from where there is no ``campaign``.
        campaign: the name of a file in the folder ``campaigns`` beside it, to start from; what it
            sweeps is left out.

    Raises:
        ProgipError: the folder or the campaign is not there.
    """
    path = Path(folder).resolve()
    if not (path / "config.yaml").exists():
        raise ProgipError(f"{path} holds no config.yaml; call this from the project's top folder")
    os.environ.setdefault("PROJECT_ROOT", str(path.parent))
    register()
    if campaign is None:
        with initialize_config_dir(str(path), version_base="1.3"):
            return compose(primary, overrides)
    campaigns = path.parent / "campaigns"
    known = sorted(file.stem for file in campaigns.glob("*.yaml"))
    if campaign not in known:
        raise ProgipError(f"campaign={campaign}: no such file. {_existing(campaign, known)}")
    with initialize_config_dir(str(campaigns), version_base="1.3"):
        return compose(campaign, [f"hydra.searchpath=[file://{path}]", *overrides])


def entry(main: Callable[[], Any]) -> None:
    """Call an entry point; a user's mistake becomes one message on stderr and exit code 1.

    Hydra's own handler would print its errors without what exists; it is switched off through its
    documented environment variable. Set that variable yourself to see tracebacks.
    """
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _terminate)  # Python's own way would leave claims behind
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # ``| head`` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        print("interrupted; the same command goes on from the last whole shard", file=sys.stderr)
        sys.exit(128 + int(number))
    except (ProgipError, HydraException, OmegaConfBaseException, YAMLError, OSError) as error:
        if debug or not _is_users(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _terminate(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not break the tidying up
    raise KeyboardInterrupt(number)


_USERS_OS_ERRORS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT,
    errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip


def _is_users(error: Exception) -> bool:
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return error.errno in _USERS_OS_ERRORS
    return True


def explain(error: BaseException) -> str:
    """One message that names the culprit and what exists instead."""
    if isinstance(error, ProgipError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; results go below outputs=FOLDER"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, YAMLError):
        place = getattr(error, "problem_mark", None)
        where = f"{place.name}, line {place.line + 1}: " if place is not None else ""
        problem = getattr(error, "problem", None) or lines[0]
        return f"{where}not valid YAML ({problem}); correct the file"
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        what = lines[0].split(". To append")[0].rstrip(".")
        parent, key = cause.parent_node, str(cause.key)
        if isinstance(parent, DictConfig) and key not in parent:
            return f"{what}. {_existing(key, [str(name) for name in parent])}"
        return what if str(cause).splitlines()[0] in what else f"{what}: {cause}".splitlines()[0]
    if isinstance(error, HydraException):
        ends = [i for i, line in enumerate(lines) if line.startswith("Config search path")]
        return " ".join(lines[: ends[0]] if ends else lines)
    return " ".join(lines[:1] + [line for line in lines[1:] if line.startswith("full_key")])


def _locate(target: str, group: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ProgipError(f"{group}: cannot find class {target} ({error})") from error


def _check_keys(options: dict[str, Any], fields: list[str], group: str) -> None:
    for key in options:
        if key not in fields:
            raise ProgipError(f"{group}.{key}: no such option. {_existing(key, fields)}")


def _existing(key: str, names: list[str]) -> str:
    close = difflib.get_close_matches(key, names, n=3)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}There are: {', '.join(sorted(names))}"

"""What Hydra's own files say about how a campaign was started: which jobs, by which command."""

import contextlib
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from progip.errors import ProgipError

#: swept to have several processes on one cell; says nothing of which cell
PART = "part"
MULTIRUN = "hydra.mode=MULTIRUN"
#: Hydra's files, below a campaign's folder and below a cell's, and copies of them that stand for
#: the last command that was not refused
SWEEP, KEPT_SWEEP = "multirun.yaml", ".accepted.yaml"
JOB, KEPT_JOB = ".hydra", ".hydra/accepted"


@dataclass(frozen=True)
class Sweep:
    """The last sweep started in a campaign's folder.

    Attributes:
        command: what starts it, to be given in the project's folder.
        jobs: the swept choices of every cell, by key.
    """

    command: str
    jobs: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Job:
    """The last job on one cell: the command that runs it alone, and every choice it was made by."""

    command: str
    choices: dict[str, str]
    planned: float

    def is_of(self, swept: dict[str, str]) -> bool:
        """Whether this cell is the one of a sweep's job."""
        return all(self.choices.get(key) == value for key, value in swept.items())

    def is_in(self, jobs: Iterable[dict[str, str]]) -> bool:
        """Whether this cell is one of a sweep's."""
        return any(self.is_of(swept) for swept in jobs)


def sweep_of(folder: Path) -> Sweep | None:
    """What Hydra's files in a campaign's folder say; None where there was no sweep."""
    hydra = (_load(folder / KEPT_SWEEP) or _load(folder / SWEEP) or {}).get("hydra")
    if hydra is None:
        return None
    every = swept_in(hydra["sweeper"].get("params") or {}, hydra["overrides"]["task"])
    swept = {
        key: [_value(value) for value in values]
        for key, (values, several) in every.items()
        if several and key != PART
    }
    jobs = tuple(dict(zip(swept, values, strict=True)) for values in product(*swept.values()))
    return Sweep(_command(hydra, sweep=True), jobs)


def swept_in(params: Mapping[str, Any], task: Iterable[str]) -> dict[str, tuple[list[str], bool]]:
    """By key the values that a sweep gives it, and whether it sweeps the key at all.

    Args:
        params: the node ``hydra.sweeper.params``.
        task: the overrides of the command, which win.
    """
    found: dict[str, tuple[list[str], bool]] = {}
    given = [f"{key}={value}" for key, value in params.items()]
    for override in OverridesParser.create().parse_overrides([*given, *task]):
        several = override.is_discrete_sweep()
        values = (
            list(override.sweep_string_iterator())
            if several
            else [override.get_value_element_as_str()]
        )
        found[override.get_key_element()] = (values, several)
    return found


def job_overrides(swept: Mapping[str, tuple[list[str], bool]]) -> list[list[str]]:
    """The overrides of every job of a sweep, one cell once however many parts it has."""
    lists = [
        [f"{key}={value}" for value in (values[:1] if key == PART else values)]
        for key, (values, _) in swept.items()
    ]
    return [list(words) for words in product(*lists)]


def accepted_overrides(folder: Path) -> tuple[dict[str, str], list[str]] | None:
    """``hydra.sweeper.params`` and the overrides of the sweep last accepted in a folder."""
    hydra = (_load(folder / KEPT_SWEEP) or {}).get("hydra")
    if hydra is None:
        return None
    params = hydra["sweeper"].get("params") or {}
    return {key: str(value) for key, value in params.items()}, list(hydra["overrides"]["task"])


def job_of(folder: Path) -> Job | None:
    """What Hydra's files in a cell's folder say; None where no Hydra job ran."""
    kept = folder / (KEPT_JOB if (folder / KEPT_JOB / "config.yaml").exists() else JOB)
    hydra = (_load(kept / "hydra.yaml") or {}).get("hydra")
    config = _load(kept / "config.yaml")
    if hydra is None or config is None:
        return None
    flat = {key: str(value) for key, value in _flat(config, "")}
    for override in hydra["overrides"]["task"]:
        key, _, value = override.partition("=")
        flat[key.lstrip("+")] = _value(value)
    choices = {**flat, **{key: str(v) for key, v in hydra["runtime"]["choices"].items()}}
    runs = config.get("runs")
    return Job(
        _command(hydra, sweep=False), choices, float(runs) if isinstance(runs, int) else math.nan
    )


def keep_command(cell: Path, campaign: Path | None) -> None:
    """Copy what Hydra wrote of the command that is running; call this once the cell accepts it.

    Hydra writes before anything is checked, so a command that is refused overwrites its files, and
    only the copies still tell what finishes the rest. A folder that cannot be written is no loss
    here: whether rows can be, shows when they are.

    Args:
        campaign: the folder of the sweep, None where there is none.
    """
    pairs = [(cell / JOB / name, cell / KEPT_JOB / name) for name in ("hydra.yaml", "config.yaml")]
    pairs += [(campaign / SWEEP, campaign / KEPT_SWEEP)] if campaign else []
    for source, target in pairs:
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, draft)
            os.replace(draft, target)


def program(here: Path = Path()) -> str:
    """What starts campaigns in a folder: run.py of a checkout, else the installed command."""
    return "python run.py" if (here / "run.py").exists() else "progip run"


def _command(hydra: dict[str, Any], *, sweep: bool) -> str:
    """``progip run ...`` of a sweep, or of one of its jobs alone."""
    words = program(Path(hydra["runtime"]["cwd"])).split()
    for source in hydra["runtime"]["config_sources"]:
        if source["provider"] == "command-line":
            path = Path(source["path"])
            here = Path(hydra["runtime"]["cwd"])
            words += [
                "--config-dir",
                str(path.relative_to(here) if path.is_relative_to(here) else path),
            ]
    name = hydra["job"]["config_name"]
    words += ["--config-name", name] if name != "config" else []
    own = [word for word in hydra["overrides"]["hydra"] if not word.startswith("hydra.mode=")]
    words += ["-m"] if sweep and MULTIRUN in hydra["overrides"]["hydra"] else []
    return shlex.join([*words, *own, *hydra["overrides"]["task"]])


def _value(text: str) -> str:
    return text.strip("'\"")


def _flat(node: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _load(path: Path) -> dict[str, Any] | None:
    try:
        content = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return None
    except (OSError, yaml.YAMLError) as error:
        raise ProgipError(f"{path} cannot be read ({str(error).splitlines()[0]})") from error
    return content if isinstance(content, dict) else None

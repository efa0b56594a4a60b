"""What Hydra's own files tell of how a campaign was started: which jobs, by which command."""

import math
import shlex
from collections.abc import Iterable
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


@dataclass(frozen=True)
class Sweep:
    """The last sweep started in a campaign's folder.

    command: what starts it, to be given in the project's folder. jobs: the swept choices of every
    cell, by key.
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
    """What ``multirun.yaml`` in a campaign's folder says; None where there was no sweep."""
    hydra = (_load(folder / "multirun.yaml") or {}).get("hydra")
    if hydra is None:
        return None
    given = [f"{key}={value}" for key, value in (hydra["sweeper"].get("params") or {}).items()]
    swept: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides([*given, *hydra["overrides"]["task"]]):
        if override.is_discrete_sweep():
            swept[override.get_key_element()] = [
                _value(v) for v in override.sweep_string_iterator()
            ]
        else:
            swept.pop(override.get_key_element(), None)
    swept.pop(PART, None)
    jobs = tuple(dict(zip(swept, values, strict=True)) for values in product(*swept.values()))
    return Sweep(_command(hydra, sweep=True), jobs)


def job_of(folder: Path) -> Job | None:
    """What ``.hydra`` in a cell's folder says; None where no Hydra job ran."""
    hydra = (_load(folder / ".hydra" / "hydra.yaml") or {}).get("hydra")
    config = _load(folder / ".hydra" / "config.yaml")
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


def _command(hydra: dict[str, Any], *, sweep: bool) -> str:
    """``python run.py ...`` of a sweep, or of one of its jobs alone."""
    words = ["python", "run.py"]
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
    own = [word for word in hydra["overrides"]["hydra"] if word != MULTIRUN]
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

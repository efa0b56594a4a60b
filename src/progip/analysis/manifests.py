"""The cells of a campaign on disk: where they are, what their manifests say, whether they agree."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from progip import records
from progip.errors import ProgipError
from progip.number_formats.fp32 import FP32

#: what tells one cell from another, as written in its manifest
IDENTITY = tuple(name for name in records.CELL.names if name not in ("cell", "target"))
#: what older manifests do not name, for there was nothing else
USUAL = {"outcome": "ood_verdict", "condition": "all", "number_format": "fp32"}


@dataclass(frozen=True)
class CellFolder:
    """One cell on disk.

    Attributes:
        name: its folder below the campaign's.
        manifest: of the cell.
        shards: files of rows, in order of runs.
        path: the folder itself.
    """

    name: str
    manifest: dict[str, Any]
    shards: tuple[Path, ...]
    path: Path = Path()

    def key(self, *names: str) -> tuple[str, ...]:
        """The named parts of the cell's identity."""
        return tuple(str(self.manifest["cell"][name]) for name in names)


def part(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a manifest; empty where it is not there."""
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def format_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The number format of a cell (``NumberFormat.described``)."""
    return manifest.get("number_format") or FP32.described()


def fault_rate(cell: CellFolder) -> float:
    """The rate of a cell's fault model; NaN where its faults are not at a rate."""
    section = (cell.manifest.get("identity") or {}).get("fault_model") or {}
    return float(section.get("rate", math.nan))


def correction_of(cell: CellFolder) -> str:
    """The protection that changed what the cell executed; "" for one that only watched."""
    section = (cell.manifest.get("identity") or {}).get("correction") or {}
    return str(section.get("name", ""))


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder in a tree with its files; names that start with . or _ are passed by."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        yield Path(folder), files


def read_cell(root: Path, here: Path, files: list[str]) -> CellFolder | None:
    """The cell in a folder of these files; None where there is none. Raises as `find_cells`."""
    if "manifest.json" not in files:
        return None
    name = here.relative_to(root).as_posix()
    manifest = _read(here / "manifest.json", name)
    if manifest is None:
        return None
    shards = sorted(f for f in files if f.startswith("part-") and f.endswith(".parquet"))
    return CellFolder(name, manifest, tuple(here / shard for shard in shards), here)


def find_cells(root: Path) -> list[CellFolder]:
    """Every cell in the tree under a folder, by name; names that start with . or _ are passed by.

    Folders whose manifest is of another kind (an execution) are no cells. Raises ProgipError when
    the folder is missing, holds no cell, or holds a manifest that cannot be understood.
    """
    if not root.is_dir():
        raise ProgipError(f"there is no folder {root}; give the folder a campaign was written to")
    cells = [cell for here, files in walk(root) if (cell := read_cell(root, here, files))]
    if not cells:
        raise ProgipError(
            f"{root} holds no cell of a campaign (no manifest.json of kind 'cell'); run a campaign "
            "there first, or give its folder"
        )
    return sorted(cells, key=lambda cell: cell.name)


def _read(path: Path, name: str) -> dict[str, Any] | None:
    """The manifest of a cell; None when it is of another kind."""
    advice = "repair or remove that folder"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProgipError(f"{name}/manifest.json cannot be read ({error}); {advice}") from error
    if not isinstance(manifest, dict) or manifest.get("kind") != "cell":
        return None
    version = manifest.get("schema_version")
    if version != records.SCHEMA_VERSION:
        raise ProgipError(
            f"{name}/manifest.json has schema version {version}, this program reads "
            f"{records.SCHEMA_VERSION}; report with the version of progip that wrote it"
        )
    cell = manifest.get("cell")
    if isinstance(cell, dict):
        manifest["cell"] = cell = {**USUAL, **cell}
    wanting = [key for key in ("runs", "seed") if not isinstance(manifest.get(key), int)]
    wanting += [f"cell.{k}" for k in IDENTITY if not isinstance(cell, dict) or cell.get(k) is None]
    if wanting:
        raise ProgipError(f"{name}/manifest.json lacks {', '.join(wanting)}; {advice}")
    return manifest

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

#: parts of a manifest's identity (else its config) that may differ only where these names differ
SECTIONS: dict[str, tuple[str, ...]] = {
    "model": (),
    "dataset": (),
    "ood_dataset": ("ood_dataset",),
    "ood_method": ("ood_dataset",),
    "fault_model": ("fault_model",),
    "protection": ("protection",),
    "sampling": (),
    "outcome": (),
    "condition": ("condition",),
    "number_format": ("number_format",),
}

#: settings of a machine; what they lead to is compared by checksum instead
MACHINE_KEYS = frozenset({"folder", "weights", "url", "sha256", "checksum", "recipe"})


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


def check_agreement(cells: list[CellFolder], allow_mixed: bool = False) -> None:
    """Refuse cells that must not be added up.

    Cells of one (model, number_format, dataset, ood_method) must agree on seed, weights, data, OOD
    threshold, code and configuration, unless allow_mixed. One cell of one seed in two folders is
    refused always: its runs would count twice. Raises ProgipError that names both folders and what
    differs.
    """
    seen: dict[Any, tuple[CellFolder, Any]] = {}
    for cell in cells:
        twin, _ = seen.setdefault(
            ("twin", cell.key(*IDENTITY), cell.manifest["seed"]), (cell, None)
        )
        if twin is not cell:
            raise ProgipError(
                f"{twin.name} and {cell.name} hold the same cell with the same seed; remove one of "
                "the two folders, or report each from its own"
            )
        if allow_mixed:
            continue
        for what, axes, value in _must_agree(cell):
            detector = cell.key("model", "number_format", "dataset", "ood_method")
            key = (what, detector, cell.key(*axes))
            other, expected = seen.setdefault(key, (cell, value))
            if difference := _difference(what, expected, value):
                raise ProgipError(
                    f"{other.name} and {cell.name} differ in {difference}, so their runs must not "
                    "be added up; report them from separate folders, or allow mixed cells "
                    "(--allow-mixed)"
                )


def _must_agree(cell: CellFolder) -> list[tuple[str, tuple[str, ...], Any]]:
    """(what, parts of the identity within which it must be the same, its value)."""
    manifest = cell.manifest
    # a protection that corrects has a detector of its own
    detector = ("ood_dataset", "protection") if correction_of(cell) else ("ood_dataset",)
    claims: list[tuple[str, tuple[str, ...], Any]] = [
        ("seed", (), manifest["seed"]),
        ("weights_sha256", (), manifest.get("weights_sha256")),
        ("data", ("ood_dataset",), manifest.get("data")),
        ("thresholds.ood", detector, (manifest.get("thresholds") or {}).get("ood")),
    ]
    settings = manifest.get("identity") or manifest.get("config") or {}
    claims += [(name, axes, settings.get(name)) for name, axes in SECTIONS.items()]
    code = settings.get("code") or {}  # not recorded by older versions
    for kind, name in code.get("classes", {}).items():
        claims.append((f"the class of {kind}", SECTIONS.get(kind, ("protection",)), name))
    return claims + [
        (f"the code of {name}", (), sha) for name, sha in code.get("modules", {}).items()
    ]


def _difference(what: str, one: Any, other: Any) -> str | None:
    """The first setting in which two values differ, with both; None when they agree."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = sorted({*one, *other} - MACHINE_KEYS)
        found = (_difference(f"{what}.{name}", one.get(name), other.get(name)) for name in names)
        return next((text for text in found if text), None)
    if one == other:
        return None
    return f"{what} ({_short(one)} and {_short(other)})"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 70 else text[:67] + "..."


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

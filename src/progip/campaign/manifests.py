"""The manifest of a folder: by which schema it was written, and what its rows are rows of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from progip import __version__, records
from progip.campaign import store
from progip.campaign.reading import way_out
from progip.campaign.store import MANIFEST, OtherConfiguration
from progip.errors import ProgipError


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a cell's or an execution's folder, None where there is none.

    Raises:
        OtherConfiguration: another schema version wrote it.
        ProgipError: it is damaged.
    """
    manifest = store.read_json(folder / MANIFEST)
    found = manifest.get("schema_version") if manifest is not None else records.SCHEMA_VERSION
    if found != records.SCHEMA_VERSION:
        raise OtherConfiguration(
            f"{folder} holds results of schema version {found}, progip {__version__} reads and "
            f"writes version {records.SCHEMA_VERSION}. {way_out(folder)}"
        )
    return manifest


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a folder's manifest, unless it holds results of another identity (then raise)."""
    with store.locked(folder):
        check_same_identity(folder, content["identity"])
        store.write_json(folder / MANIFEST, content)


def check_same_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Refuse to write beside rows that another configuration made.

    Raises:
        OtherConfiguration: naming every setting that differs, or the schema version.
        ProgipError: there are rows, but nothing tells what they are rows of.
    """
    manifest = read_manifest(folder)
    if manifest is None and store.named_shards(folder):
        manifest = read_manifest(folder)  # another process may just have begun here
        if manifest is None:
            raise ProgipError(
                f"{folder} holds rows but no {MANIFEST}, so nothing tells what they are rows of. "
                "Put it back, or choose another campaign name (name=...) or move the folder away"
            )
    if manifest is None:
        return
    differences = list(_differences(manifest["identity"], json.loads(json.dumps(identity)), ""))
    if differences:
        raise OtherConfiguration(
            f"{folder} holds results of another configuration and is not touched: "
            + "; ".join(differences)
            + ". Choose another campaign name (name=...) or move the folder away"
        )


def _differences(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            pair = (old.get(name, "(absent)"), new.get(name, "(absent)"))
            yield from _differences(*pair, f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key} was {old}, is now {new}"

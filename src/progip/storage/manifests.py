"""The manifest of a folder: by which schema it was written, and what its rows are rows of."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from progip import __version__, records
from progip.errors import ProgipError
from progip.storage import store
from progip.storage.partial_runs import PATTERN
from progip.storage.progress import PREFIX, is_dead, is_own
from progip.storage.reading import way_out
from progip.storage.source_code import source_file
from progip.storage.store import MANIFEST, OtherConfiguration

#: the part of an identity that names code instead of settings
CODE = "code"


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


def has_rows(folder: Path) -> bool:
    """Whether runs are stored in a cell's or an execution's folder, or somebody is about to."""
    working = [beat for beat in folder.parent.glob(f"*/{PREFIX}*") if not is_own(beat)]
    stored = store.named_shards(folder) or any(folder.glob(PATTERN))
    return bool(stored) or any(not is_dead(beat) for beat in working)


def check_same_identity(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse to write beside rows that another configuration or other code made.

    A folder that holds no row yet, and that no other process works on, may take any.

    Raises:
        OtherConfiguration: naming every setting or module that differs, or the schema version.
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
    if manifest is None or not has_rows(folder):
        return
    differences = settings_differences(manifest["identity"], wanted)
    if differences:
        raise OtherConfiguration(
            f"{folder} holds results of another configuration and is not touched: "
            + "; ".join(differences)
            + ". Choose another campaign name (name=...) or move the folder away"
        )
    if CODE in wanted and CODE not in manifest["identity"]:
        raise OtherConfiguration(
            f"{folder} was written by a version of progip that did not record the code of network "
            "and method, so nothing tells whether further rows would be of the same. Report, "
            f"status and replay read it. {way_out(folder)}"
        )
    edited = code_differences(manifest["identity"], wanted)
    if edited:
        raise OtherConfiguration(
            f"{folder} holds rows of other code and is not touched: {'; '.join(edited)}. Choose "
            "another campaign name (name=...) for what the code is now, or put back what made "
            "these rows"
        )


def settings_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in two identities beside code, each in a few words.

    A component that another one took the place of is named alone: not its options, nor what
    follows from it (the weights of a model, the content of a data set).
    """
    found = list(_differences(_settings(old), _settings(json.loads(json.dumps(new)))))
    keys = {key for key, _ in found}
    follows = {"weights_sha256": {"model"}, "data": {"dataset", "ood_dataset"}}
    return [said for key, said in found if not follows.get(key.partition(".")[0], set()) & keys]


def code_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in the code of two identities, each module and class in a few words."""
    was, now = old.get(CODE) or {}, new.get(CODE) or {}
    if not was or not now:
        return []
    classes = now["classes"]
    found = [
        f"{kind} was {was['classes'].get(kind, '(absent)')}, is now {name}"
        for kind, name in classes.items()
        if was["classes"].get(kind) != name
    ]
    for name in sorted({*was["modules"], *now["modules"]}):
        digests = was["modules"].get(name), now["modules"].get(name)
        if digests[0] == digests[1]:
            continue
        own = [kind for kind, cls in classes.items() if cls.startswith(f"{name}.")]
        where = ", ".join([*own[:1], str(source_file(name) or "no file")])
        verb = "was edited" if all(digests) else "is no longer used" if digests[0] else "is new"
        found.append(f"{name} ({where}) {verb}")
    return found


def _settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name != CODE}


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every setting that differs, and what was there and is there now."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = old.get("name"), new.get("name")
        if key and all(names) and names[0] != names[1]:
            yield key, f"{key} was {names[0]}, is now {names[1]}"
            return
        for name in sorted({*old, *new}):
            pair = (old.get(name, "(absent)"), new.get(name, "(absent)"))
            yield from _differences(*pair, f"{key}.{name}" if key else name)
    elif old != new:
        yield key, f"{key} was {old}, is now {new}"

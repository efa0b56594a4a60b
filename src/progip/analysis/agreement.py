"""Which cells of a folder may be added up: those that agree on all that they must share."""

import json
from collections import Counter
from typing import Any

from progip.analysis.manifests import IDENTITY, CellFolder, correction_of
from progip.errors import ProgipError
from progip.storage.store import shard_of

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


Claims = dict[tuple, Any]


def agreeing(
    cells: list[CellFolder], allow_mixed: bool = False
) -> tuple[list[CellFolder], list[str]]:
    """The cells that may be added up, and a sentence for each reason why others are left out.

    Cells of one (model, number_format, dataset, ood_method) must agree on seed, weights, data, OOD
    threshold, code and configuration, unless allow_mixed. Where they do not, those stay that agree
    with most rows; of as many rows, those whose folder comes first.

    Raises:
        ProgipError: one cell of one seed is in two folders: its runs would count twice.
    """
    _refuse_twins(cells)
    if allow_mixed:
        return cells, []
    claims = [_claims(cell) for cell in cells]
    forms = [{key: _form(value) for key, value in own.items()} for own in claims]
    support: Counter[tuple[tuple, str]] = Counter()
    for cell, own in zip(cells, forms, strict=True):
        for claim in own.items():
            support[claim] += 1 + _rows(cell)
    order = sorted(range(len(cells)), key=lambda i: -sum(support[c] for c in forms[i].items()))
    accepted: dict[tuple, int] = {}
    left_out: dict[str, list[str]] = {}
    kept = []
    for number in order:
        own = forms[number]
        against = next((k for k in own if k in accepted and forms[accepted[k]][k] != own[k]), None)
        if against is None:
            kept.append(number)
            for key in own:
                accepted.setdefault(key, number)
            continue
        other = accepted[against]
        what = _difference(against[0], claims[other][against], claims[number][against])
        said = f"it differs from {cells[other].name} in {what or against[0]}"
        left_out.setdefault(said, []).append(cells[number].name)
    return [cells[number] for number in sorted(kept)], [
        f"left out: {', '.join(names)}: "
        f"{said if len(names) == 1 else 'they differ' + said.removeprefix('it differs')}, so their "
        "runs must not be added up; report them from separate folders, or all with --allow-mixed"
        for said, names in left_out.items()
    ]


def _refuse_twins(cells: list[CellFolder]) -> None:
    seen: dict[Any, CellFolder] = {}
    for cell in cells:
        twin = seen.setdefault((cell.key(*IDENTITY), cell.manifest["seed"]), cell)
        if twin is not cell:
            raise ProgipError(
                f"{twin.name} and {cell.name} hold the same cell with the same seed; remove one of "
                "the two folders, or report each from its own"
            )


def _rows(cell: CellFolder) -> int:
    shards = filter(None, map(shard_of, cell.shards))
    return sum(shard.stop - shard.start for shard in shards)


def _claims(cell: CellFolder) -> Claims:
    """What a cell must share with others: by what it is, and within which cells."""
    detector = cell.key("model", "number_format", "dataset", "ood_method")
    return {(what, detector, cell.key(*axes)): value for what, axes, value in _must_agree(cell)}


def _form(value: Any) -> str:
    """A value to be compared, without the settings of a machine."""
    return json.dumps(_without_machine(value), sort_keys=True, default=str)


def _without_machine(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_machine(v) for k, v in value.items() if k not in MACHINE_KEYS}


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
        called = one.get("name"), other.get("name")
        if all(called) and called[0] != called[1]:  # the options of two components say nothing
            return f"{what} ({called[0]} and {called[1]})"
        names = sorted({*one, *other} - MACHINE_KEYS)
        found = (_difference(f"{what}.{name}", one.get(name), other.get(name)) for name in names)
        return next((text for text in found if text), None)
    if one == other:
        return None
    return f"{what} ({_short(one)} and {_short(other)})"


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 70 else text[:67] + "..."

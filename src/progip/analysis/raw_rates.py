"""Raw failure rates per bit that the user gives: read from a YAML file and checked.

No rate is known here: they depend on technology, altitude and voltage, and only their user knows
where they come from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from progip.errors import ProgipError
from progip.passes import is_pass
from progip.records import EVERY_PASS, PASSES

TARGETS = ("output", "grad_input", "weight", "bias")
_KEYS = {"technology", "source", "fit_per_bit", "targets", "passes", "residency", "residency_of"}
_NEEDED = ("technology", "source", "fit_per_bit", "targets", "residency")


@dataclass(frozen=True)
class RawRate:
    """The raw failure rate of one kind of memory, and what lies in it how long.

    Attributes:
        technology: of the memory, in the user's words.
        source: where the rate comes from.
        fit_per_bit: failures of one bit in 10^9 hours.
        targets: kinds of tensors that lie there.
        passes: of their values; empty: of every pass.
        residency: share of the operating time for which such a value is held and still needed.
        residency_of: the same for single layers.
    """

    technology: str
    source: str
    fit_per_bit: float
    targets: tuple[str, ...]
    passes: tuple[str, ...] = ()
    residency: float = 1.0
    residency_of: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RawRates:
    """Every entry of a file of raw rates."""

    path: str
    entries: tuple[RawRate, ...]

    def of(self, target: str, fault_pass: str) -> RawRate:
        """The entry for tensors of a kind, hit in a pass; ProgipError where there is none."""
        for entry in self.entries:
            if target in entry.targets and (not entry.passes or fault_pass in entry.passes):
                return entry
        raise ProgipError(
            f"{self.path}: there is no raw rate for target '{target}' hit in {fault_pass}, which "
            "this campaign has; add an entry with it among its targets (and passes)"
        )

    def check_layers(self, known: set[str]) -> None:
        """Raise ProgipError for a residency of a layer that the campaign does not hit."""
        for entry in self.entries:
            for layer in entry.residency_of:
                if layer not in known:
                    some = ", ".join(sorted(known)[:8])
                    raise ProgipError(
                        f"{self.path}: residency_of names the layer '{layer}', which no fault of "
                        f"this campaign hits; its layers are {some}"
                    )


def read_raw_rates(path: str | Path) -> RawRates:
    """The raw rates in a YAML file: a list ``rates`` of entries with the fields of ``RawRate``.

    Raises:
        ProgipError: the file cannot be read, or an entry lacks a key, has an unknown one, or a
            value that cannot be; the file, the entry and the key are named.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ProgipError(f"{path}: raw rates cannot be read: {reason}") from error
    entries = content.get("rates") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ProgipError(
            f"{path}: give a list 'rates' of entries with {', '.join(_NEEDED)} (docs/fit.md)"
        )
    return RawRates(
        str(path), tuple(_entry(f"{path}: rates[{i}]", e) for i, e in enumerate(entries))
    )


def _entry(where: str, content: Any) -> RawRate:
    if not isinstance(content, dict):
        raise ProgipError(f"{where} is {content!r}; give {', '.join(_NEEDED)}")
    for key in _NEEDED:
        if content.get(key) is None:
            raise ProgipError(f"{where} lacks {key}: {_MISSING[key]}")
    if unknown := sorted(map(str, set(content) - _KEYS)):
        raise ProgipError(f"{where}: unknown key {unknown[0]}; keys are {', '.join(sorted(_KEYS))}")
    layers = content.get("residency_of") or {}
    if not isinstance(layers, dict):
        raise ProgipError(f"{where}.residency_of is {layers!r}; give layers with their shares")
    return RawRate(
        str(content["technology"]),
        str(content["source"]),
        _number(f"{where}.fit_per_bit", content["fit_per_bit"]),
        _names(f"{where}.targets", content["targets"], TARGETS),
        _passes(f"{where}.passes", content.get("passes") or []),
        _share(f"{where}.residency", content["residency"]),
        {str(n): _share(f"{where}.residency_of.{n}", share) for n, share in layers.items()},
    )


_MISSING = {
    "technology": "say what memory this is",
    "source": "say where its rate comes from, a test report or a standard; it is printed",
    "fit_per_bit": "the failures of one bit in 10^9 hours; no rate is built in",
    "targets": f"a list of the tensors that lie there, of {', '.join(TARGETS)}",
    "residency": "the share of the operating time for which a value is held and still needed; 1 "
    "is the upper end",
}


def _number(where: str, value: Any) -> float:
    try:  # YAML reads 1e-4 as text
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise ProgipError(f"{where} is {value!r}; give a finite number of 0 or more")
    return number


def _share(where: str, value: Any) -> float:
    number = _number(where, value)
    if not 0 < number <= 1:
        raise ProgipError(f"{where} is {value!r}; give a share of the time above 0, at most 1")
    return number


def _passes(where: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    further = [n for n in names if is_pass(str(n))] if isinstance(names, list) else []
    return _names(where, value, tuple(dict.fromkeys((*PASSES, *further, EVERY_PASS))))


def _names(where: str, value: Any, known: tuple[str, ...]) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or any(name not in known for name in names):
        raise ProgipError(f"{where} is {value!r}; give a list of {', '.join(known)}")
    return tuple(names)

"""What an outcome declares, as manifests keep it: which events and measures a report is made of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that can come of a run, whose rate is reported.

    Attributes:
        name: what counts and rates are called: ``NAME_failures``, ``NAME_left``, ``NAME_rate``.
        flag: column of result rows, bool; where it is set, ``base`` is set, too.
        base: column of the runs among which it is counted; "" for all runs.
        title: plural, for tables: ``Classification failures``.
        clause: what such runs do, for sentences: ``take another class``.
        short: for narrow columns: ``C``.
        failure: whether it is one of the failures that are reported together.
        nonfinite: column that says whether such a run, after a fault in a forward pass, is not
            finite; "" where nothing does.
    """

    name: str
    flag: str
    base: str
    title: str
    clause: str
    short: str
    failure: bool = True
    nonfinite: str = ""


@dataclass(frozen=True)
class Measure:
    """A number of every run, whose mean is reported; values that are not finite counted apart.

    Attributes:
        name: what it is called.
        column: of result rows.
        minus: column that is subtracted; "" for none.
        base: column of the runs among which the mean is taken; "" for all runs.
        title: for tables.
        by_layer: whether the printed table of layers shows it.
    """

    name: str
    column: str
    minus: str
    base: str
    title: str
    by_layer: bool = False


@dataclass(frozen=True)
class Declared:
    """The events and measures of an outcome.

    Attributes:
        name: of the outcome.
        base: column of the runs that can fail.
        base_title: plural, for tables: ``Originally correct runs``.
        base_clause: for sentences: ``runs that were right without their fault``.
        disjoint: whether no run has two events.
    """

    name: str
    base: str
    base_title: str
    base_clause: str
    events: tuple[Event, ...]
    measures: tuple[Measure, ...] = ()
    disjoint: bool = False

    @property
    def failures(self) -> tuple[Event, ...]:
        """The events that are failures."""
        return tuple(event for event in self.events if event.failure)

    def to_json(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Declared":
        """What ``to_json`` gave."""
        events = tuple(Event(**event) for event in content["events"])
        measures = tuple(Measure(**measure) for measure in content["measures"])
        return cls(**{**content, "events": events, "measures": measures})

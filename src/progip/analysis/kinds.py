"""Kinds of rows: what an outcome's events and the alarm make of a run, and the rates they give.

A row's category is the set of its flags, as bits; every rate of a campaign is the share of some
categories among others, so one small set of sums serves them all.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from progip.outcomes.declared import Declared, Event
from progip.outcomes.ood_verdict import DECLARED

ALARM = "alarm"
Mask = NDArray[np.bool_]


class Kinds:
    """What is counted of the rows of one outcome.

    Attributes:
        declared: the outcome's events.
        flags: the columns that make a category, the alarm last.
        count: number of categories, K.
        masks: name of a kind of rows -> its categories (K,).
        rates: rate -> (events, base), both kinds; "left" means not noticed by the protection.
        silent: category -> the same without its alarm (K,).
    """

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        bases = [declared.base, *(event.base for event in declared.events)]
        named = [*filter(None, bases), *(event.flag for event in declared.events), ALARM]
        self.flags = tuple(dict.fromkeys(named))
        self.count = 2 ** len(self.flags)
        alarm = self._has(ALARM)
        failed = np.zeros(self.count, dtype=bool)
        for event in declared.failures:
            failed |= self._of(event)
        correct = self._has(declared.base)
        self.masks: dict[str, Mask] = {"done": self._has("")}
        self.masks |= {base: self._has(base) for base in filter(None, bases)}
        for event in declared.events:
            self.masks[f"{event.name}_failures"] = self._of(event)
        for event in declared.events:
            self.masks[f"{event.name}_left"] = self._of(event) & ~alarm
        self.masks |= {
            "alarms": alarm,
            "harmless": ~failed,
            "harmless_alarms": ~failed & alarm,
            "harmless_correct": ~failed & correct,
            "harmless_correct_alarms": ~failed & correct & alarm,
            "failures": failed,
            "failures_left": failed & ~alarm,
            "failures_detected": failed & alarm,
        }
        for event in declared.events:
            self.masks[f"{event.name}_detected"] = self._of(event) & alarm
        self.rates = self._rates(declared)
        self.silent = np.arange(self.count) & ~(1 << self.flags.index(ALARM))

    def _rates(self, declared: Declared) -> dict[str, tuple[str, str]]:
        base = declared.base or "done"
        rates = {f"{declared.base}_rate": (declared.base, "done")} if declared.base else {}
        for event in declared.events:
            found = f"{event.name}_detected", f"{event.name}_failures"
            rates[f"{event.name}_accuracy"] = found
        rates["overall_accuracy"] = ("failures_detected", "failures")
        rates["failure_rate"] = ("failures_left", base)
        rates["failure_rate_before"] = ("failures", base)
        for event in declared.events:
            rates[f"{event.name}_rate"] = (f"{event.name}_left", event.base or "done")
        rates["harmless_alarm_rate"] = ("harmless_alarms", "harmless")
        rates["harmless_correct_alarm_rate"] = ("harmless_correct_alarms", "harmless_correct")
        return rates

    def _has(self, flag: str) -> Mask:
        """The categories with a flag; all of them for ""."""
        if not flag:
            return np.ones(self.count, dtype=bool)
        found: Mask = (np.arange(self.count) >> self.flags.index(flag) & 1).astype(bool)
        return found

    def _of(self, event: Event) -> Mask:
        """The categories with an event; without its base there are none."""
        return self._has(event.flag) & self._has(event.base)

    def categories(self, columns: Mapping[str, NDArray]) -> NDArray[np.int64]:
        """The category of each row, from the columns ``flags``."""
        result = np.zeros(len(columns[ALARM]), dtype=np.int64)
        for place, name in enumerate(self.flags):
            result |= columns[name].astype(np.int64) << place
        return result

    def clean(self, category: NDArray[np.int64], alarm: Mask) -> NDArray[np.int64]:
        """The categories of the same rows without their faults: no event, and the clean alarm."""
        events = sum(
            1 << place for place in {self.flags.index(e.flag) for e in self.declared.events}
        )
        place = self.flags.index(ALARM)
        found: NDArray[np.int64] = (
            category & ~events & ~(1 << place) | alarm.astype(np.int64) << place
        )
        return found

    def odd(self, columns: Mapping[str, NDArray]) -> str:
        """What makes no sense in the flags of some rows, in words; "" for nothing."""
        for event in self.declared.events:
            if event.base and (columns[event.flag] & ~columns[event.base]).any():
                return f"a run has {event.flag} without {event.base}"
        if self.declared.disjoint:
            several = sum(columns[event.flag].astype(np.int8) for event in self.declared.events)
            if np.any(several > 1):
                names = " and ".join(event.flag for event in self.declared.events)
                return f"a run has {names} at once"
        return ""

    def failed(self, columns: Mapping[str, NDArray]) -> Mask:
        """Which rows are failures, before any protection."""
        flags = [columns[event.flag] for event in self.declared.failures]
        result: Mask = np.logical_or.reduce(flags)
        return result


@cache
def kinds_of(declared: Declared) -> Kinds:
    """The kinds of an outcome."""
    return Kinds(declared)


OOD_VERDICT = kinds_of(DECLARED)


def declared_in(manifest: Mapping[str, Any]) -> Declared:
    """The outcome of a cell; manifests from before there were outcomes are of ``ood_verdict``."""
    found = manifest.get("outcome")
    return Declared.from_json(found) if found else DECLARED

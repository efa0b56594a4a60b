"""How many runs per cell gets, said before it starts, with what they buy and cost."""

import json
import logging
import os
from dataclasses import dataclass
from typing import NamedTuple

from progip.cache import cache_root
from progip.errors import ProgipError
from progip.statistics.intervals import check_confidence
from progip.statistics.sizing import margin_of, sample_size
from progip.storage.progress import duration

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Sizing:
    """The size of a cell by the margin it is to reach; without a margin, ``runs`` is the size.

    Attributes:
        maps: whole rounds, of faults that stay in memory for a round of images; null: not used.
        margin: half-width of the interval, a fraction of 1; null: not used.
        relative: whether the margin is a part of the expected rate: .1 for ten per cent of it.
        confidence: of the interval.
        rate: the rate expected; .5 is the worst case of an absolute margin.
        finite: correct for the finite number of faults as Leveugle's formula does. Runs are drawn
            with replacement here, so this is for comparison with published sizes.
        max_runs: a cell that would need more is refused, with the margin that so many would buy.
    """

    maps: int | None = None
    margin: float | None = None
    relative: bool = False
    confidence: float = 0.95
    rate: float = 0.5
    finite: bool = False
    max_runs: int = 10_000_000

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        if not 0 < self.rate < 1:
            raise ProgipError(f"sizing.rate={self.rate}: give a fraction between 0 and 1")
        if self.maps is not None and self.maps < 1:
            raise ProgipError(f"sizing.maps={self.maps}: give at least one fault map")
        if self.maps is not None and self.margin is not None:
            raise ProgipError(
                "sizing.maps and sizing.margin both say how large a cell is; give one"
            )
        if self.max_runs < 1:
            raise ProgipError(f"sizing.max_runs={self.max_runs}: must be at least 1")
        if self.margin is None and (self.relative or self.finite):
            key = "relative" if self.relative else "finite"
            raise ProgipError(
                f"sizing.{key}=true has no effect without sizing.margin; give the margin to reach"
            )
        if self.margin is not None and not 0 < self.margin <= 1:
            raise ProgipError(
                f"sizing.margin={self.margin}: a half-width is a fraction above 0 and at most 1"
            )

    def size(self, runs: int, population: int | None, per_map: int = 1) -> int:
        """Runs of a cell whose population has so many faults; None: any number of them.

        Args:
            per_map: runs that share a fault map; a margin then needs as many maps as it would
                need runs, since runs of one map may be all alike.

        Raises:
            ProgipError: more than ``max_runs``; says what that number would buy.
        """
        if self.finite and population is None:
            raise ProgipError(
                "sizing.finite: faults at a rate are not counted, so there is no finite number of "
                "them to correct for; leave sizing.finite=false"
            )
        faults = population if self.finite else None
        needed = runs
        if self.margin is not None:
            absolute = self.margin * (self.rate if self.relative else 1.0)
            needed = sample_size(
                absolute, confidence=self.confidence, rate=self.rate, population=faults
            )
            needed *= per_map
        if needed > self.max_runs:
            bought = margin_of(
                max(self.max_runs // per_map, 1), confidence=self.confidence, rate=self.rate
            )
            what = f"runs={runs}" if self.margin is None else f"a margin of {self.margin:g}"
            raise ProgipError(
                f"{what} needs {needed:,} runs per cell, sizing.max_runs allows {self.max_runs:,}, "
                f"which buy a margin of {bought:.2g}; raise the one or the other"
            )
        return needed

    def announcement(
        self,
        runs: int,
        population: int | None,
        speed: "Speed | None",
        per_map: int = 1,
        done: int = 0,
    ) -> str:
        """What a size means, in a sentence: margins, share of the population, time.

        Args:
            speed: measured earlier; None where it never was.
            per_map: runs that share a fault map; margins are then those of so many fewer units.
            done: runs that are executed already.
        """
        percent = f"{100 * self.confidence:g} %"
        units = max(runs // per_map, 1)
        worst = margin_of(units, confidence=self.confidence)
        text = f"{runs:,} runs"
        if per_map > 1:
            text += f" under {-(-runs // per_map):,} fault maps"
        text += "; " if population is None else f" of {population:,} possible faults; "
        if self.rate != 0.5:
            expected = margin_of(units, confidence=self.confidence, rate=self.rate)
            text += f"{percent} margin {expected:.2g} at a rate of {self.rate:g}, "
        else:
            text += f"{percent} margin "
        text += f"{worst:.2g} at worst"
        if done >= runs:
            return f"{text}; all of them are executed already"
        if done:
            text += f"; {done:,} of them are executed already"
        if speed is None:
            return f"{text}; how long it takes is not known yet"
        text += f"; about {duration(speed.start + (runs - done) * speed.per_run)} here"
        if speed.start >= 1:
            text += f", {duration(speed.start)} of it before the first run"
        return text


class Speed(NamedTuple):
    """Seconds that a cell takes here: before its first run, and for each run."""

    start: float
    per_run: float


def known_speed(cell: str) -> Speed | None:
    """Measured when the same cell last ran on this machine; None if it never did."""
    try:
        found = json.loads((cache_root() / "speed.json").read_text())[cell]
        if isinstance(found, list):
            return Speed(*map(float, found))
        return Speed(0.0, float(found))  # of a version that measured runs alone
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_speed(cell: str, speed: Speed) -> None:
    """Keep measured times for the next announcement; a cache that cannot be written is no loss.

    A start for which all was ready tells nothing about the next process: the one known stays.
    """
    path = cache_root() / "speed.json"
    before = known_speed(cell)
    if before is not None and speed.start < 1:
        speed = speed._replace(start=before.start)
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    try:
        draft = path.with_name(f"speed-{os.getpid()}.json")  # other processes keep theirs too
        draft.write_text(json.dumps({**known, cell: list(speed)}))
        os.replace(draft, path)
    except OSError as error:
        log.debug("speed not kept: %s", error)

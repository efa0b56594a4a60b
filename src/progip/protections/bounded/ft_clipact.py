"""FT-ClipAct: each layer's bound is searched for by the accuracy that it leaves under faults."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from progip.described import WORKS
from progip.fault_models.base import Hits
from progip.fault_models.bit_error_rate import BitErrorRate
from progip.fault_models.parameters import Memory, parameter_sites
from progip.protections.bounded.base import BoundedActivation, Bounds, bound_parameters
from progip.protections.bounded.clock import Clock
from progip.protections.bounded.data import SearchData
from progip.protections.bounded.profile import maxima
from progip.protections.bounded.sites import relu_calls
from progip.storage.whole_files import Checkpoint

log = logging.getLogger(__name__)
PARTS = 4  # thresholds of a round, and sub-intervals


@dataclass(kw_only=True)
class FTClipAct(BoundedActivation):
    """Bounds are chosen layer by layer by the area below accuracy against bit error rate.

    Source: Hoang, Hanif, Shafique: FT-ClipAct, DATE 2020, Algorithm 1. A layer's interval begins as
    0 to its largest clean output. Four thresholds divide it into equal parts; the one with the
    largest area keeps its two neighbouring parts, at an edge its one, as the next interval.

    Faults are flips of bits of weights and biases of convolutions and linear layers, in the format
    that holds them. All thresholds of all layers meet the same fault maps.

    Attributes:
        rates: bit error rates of the area, equally far apart on its axis.
        maps: fault maps of each rate.
        rounds: at most so many intervals of a layer.
        least_rounds: at least so many.
        tolerance: a layer is done when no two neighbouring thresholds' areas differ by more, in
            percent of accuracy.
    """

    sentence: ClassVar[str] = (
        "FT-ClipAct sets outputs of ReLUs beyond a bound to zero; each layer's bound is the one "
        "that keeps the most accuracy under bit errors in weights [FT-ClipAct]."
    )
    references: ClassVar[Mapping[str, str]] = {"FT-ClipAct": WORKS["FT-ClipAct"]}

    rates: list[float] = field(default_factory=lambda: [1e-7, 1e-6, 3e-6, 1e-5, 3e-5])
    maps: int = 5
    rounds: int = 4
    least_rounds: int = 3
    tolerance: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = len(self.rates) >= 2 and sorted(set(self.rates)) == list(self.rates)
        self._must("rates", rising and self.rates[0] >= 0, "must be at least two, rising")
        self._must("rates", rising and self.rates[-1] <= 1, "are probabilities, at most 1")
        self._must("maps", self.maps >= 1, "must be at least 1")
        self._must("least_rounds", self.least_rounds >= 1, "must be at least 1")
        self._must("rounds", self.rounds >= self.least_rounds, "must be at least least_rounds")
        self._must("tolerance", self.tolerance >= 0, "must not be negative")
        self._must("granularity", self.granularity == "layer", "cannot be searched; give layer")
        self._must("validation", self.validation >= 1, "must be at least 1: it is chosen by them")

    def search(self, network: nn.Module, data: SearchData, checkpoint: Checkpoint) -> Bounds:
        calls = relu_calls(self.name, network, data.pair)
        bounds = maxima(network, calls, data.images, "layer")
        area = _Area(self, network, bounds, data)
        state = checkpoint.load() or {"layers": [], "round": 0, "low": 0.0, "high": None}
        clock = Clock(len(state["layers"]), len(calls))
        for number, call in enumerate(calls):
            if number < len(state["layers"]):
                area.bounds[call].fill_(state["layers"][number])
                continue
            if state["high"] is None:  # again, behind the bounds that are settled
                highest = maxima(area.network, [call], data.images, "layer")[call].item()
                state |= {"round": 0, "low": 0.0, "high": highest}
            state["layers"].append(self._layer(call, area, state, checkpoint))
            state["high"] = None
            area.bounds[call].fill_(state["layers"][-1])
            checkpoint.save(state)
            log.info(
                "protection %s: bound %d of %d, '%s': %.4g, largest clean output %.4g, %s",
                self.name, number + 1, len(calls), call[0], state["layers"][-1], bounds[call],
                clock.left(number + 1),
            )  # fmt: skip
        return {call: area.bounds[call].detach() for call in calls}

    def _layer(
        self, call: tuple[str, int], area: "_Area", state: dict[str, float], kept: Checkpoint
    ) -> float:
        """The bound of one layer, from the interval of the state on."""
        while True:
            low, high = state["low"], state["high"]
            thresholds = [low + (high - low) * part / PARTS for part in range(1, PARTS + 1)]
            areas = [area.of(call, threshold) for threshold in thresholds]
            best = int(np.argmax(areas))
            state["round"] += 1
            flat = np.abs(np.diff(areas)).max() <= self.tolerance
            if state["round"] >= self.rounds or (state["round"] >= self.least_rounds and flat):
                return thresholds[best]
            state["low"] = low if best == 0 else thresholds[best - 1]
            state["high"] = thresholds[min(best + 1, PARTS - 1)] if best else thresholds[0]
            kept.save(state)


class _Area:
    """Accuracy against bit error rate of the bounded network, under always the same fault maps."""

    def __init__(
        self, options: FTClipAct, network: nn.Module, bounds: Bounds, data: SearchData
    ) -> None:
        self.network = options.with_bounds(network, bounds)
        self.bounds = bound_parameters(self.network)
        self._data, self._options = data, options
        everything = parameter_sites(network, {})
        self._hits: list[list[Hits]] = []
        for rate in options.rates:
            faults = BitErrorRate(name=options.name, rate=rate)
            sites = faults.select(everything)
            key = f"{options.name}-{rate:g}"
            plan = faults.plan(sites, 1, options.seed, key, 0, options.maps)
            drawn = faults.hits(sites, plan, options.seed, key)
            self._hits.append([_of_map(drawn, number) for number in range(options.maps)])
        self._memory = Memory(network, sites)

    def of(self, call: tuple[str, int], threshold: float) -> float:
        """The area with this bound of a layer, in percent of accuracy."""
        self.bounds[call].fill_(threshold)
        clean = self._data.accuracy(self.network)
        curve = [np.mean([self._accuracy(hits, clean) for hits in maps]) for maps in self._hits]
        return float(np.trapezoid(curve, np.arange(1, len(curve) + 1) / len(curve)))

    @torch.no_grad()
    def _accuracy(self, hits: Hits, clean: float) -> float:
        if not len(hits.row):
            return clean
        with self._memory.faulty(hits):
            return self._data.accuracy(self.network)


def _of_map(hits: Hits, number: int) -> Hits:
    """The hits of one map alone."""
    chosen = hits.row == number
    return Hits(hits.row[chosen], hits.site[chosen], hits.neuron[chosen], hits.mask[chosen])

"""A stopping rule at work on one cell: looks at its rows, says what it sees, and when it is enough.

What it decides depends on rows and settings alone, so a campaign that is started again stops where
it would have stopped.
"""

import logging
from typing import Any

from progip.analysis.precision import cell_paths, rate_of
from progip.analysis.tally import tally_shards
from progip.campaign.settings import CellSettings
from progip.stopping.base import Estimate, Look
from progip.storage import store
from progip.storage.manifests import write_manifest

log = logging.getLogger(__name__)


class StoppingMonitor:
    """The looks at one cell so far.

    Attributes:
        last: the latest look; None where nothing is watched.
    """

    def __init__(self, settings: CellSettings, runs: int) -> None:
        self._rule = settings.stopping
        self._name = settings.names["cell"]
        self._folder = settings.folder
        self._estimates: list[tuple[int, Estimate]] = []
        self.looks = self._rule.looks(runs)
        self.last: Look | None = None

    def enough(self, runs: int) -> bool:
        """Look at the rows of runs 0..runs-1, which must be there; whether they are enough."""
        quantity = self._rule.quantity
        if quantity is None:
            return False
        manifest = store.read_json(self._folder / store.MANIFEST) or {}
        tally = tally_shards(cell_paths(self._folder, runs), manifest, runs)
        moments, kinds = tally.moments(), tally.kinds
        self._estimates.append((runs, lambda c, m=moments: rate_of(m, quantity, c, kinds)))
        self.last = look = self._rule.judge(self._estimates)
        if look is None:
            return False
        rate = look.rate
        log.info(
            "%s: look at %d runs: %s %.4g, interval %.4g to %.4g, half-width %.3g, %s",
            self._name, runs, quantity, rate.estimate, rate.low, rate.high, look.half_width,
            "narrow enough" if look.enough else "not yet narrow enough",
        )  # fmt: skip
        if not look.enough and runs == self.looks[-1]:
            log.warning(
                "%s: stopped by the cap of %d runs; the margin asked for is not reached",
                self._name, runs,
            )  # fmt: skip
        return look.enough

    def record(self) -> None:
        """Write the last look into the cell's manifest."""
        if self.last is None:
            return
        look, rate = self.last, self.last.rate
        manifest: dict[str, Any] = store.read_json(self._folder / store.MANIFEST) or {}
        manifest["stopping"] = {
            "rule": self._rule.name,
            "of": self._rule.quantity,
            "looks": len(self._estimates),
            "runs": look.runs,
            "estimate": rate.estimate,
            "low": rate.low,
            "high": rate.high,
            "half_width": look.half_width,
            "enough": look.enough,
        }
        write_manifest(self._folder, manifest)

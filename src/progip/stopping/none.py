"""No stopping: a cell has as many runs as were asked for."""

from dataclasses import dataclass

from progip.stopping.base import Estimate, Look, StoppingRule


@dataclass(kw_only=True)
class NoStopping(StoppingRule):
    """All runs, whatever they show."""

    def looks(self, runs: int) -> list[int]:
        return [runs]

    def judge(self, estimates: list[tuple[int, Estimate]]) -> Look | None:
        return None

"""A campaign as the report sees it: one row per cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from progip.analysis import tally
from progip.analysis.agreement import agreeing
from progip.analysis.base_metrics import as_number, base_metrics
from progip.analysis.counting import count_cell
from progip.analysis.kinds import Kinds, declared_in, kinds_of
from progip.analysis.manifests import (
    IDENTITY,
    USUAL,
    CellFolder,
    correction_of,
    fault_rate,
    find_cells,
    part,
)
from progip.analysis.observing import ExecutedRuns, observe
from progip.analysis.raw_rows import raw_rows
from progip.errors import ProgipError
from progip.outcomes.declared import Declared
from progip.outcomes.ood_verdict import DECLARED as OOD_VERDICT

#: what a table may pool over only within, never across
SETTING = ("dataset", "ood_dataset", "fault_model", "number_format", "condition")
#: what the clean evaluation of a detector depends on
DETECTOR = ("model", "dataset", "ood_dataset", "ood_method", "number_format")


#: of the runs that are done; where fewer can fail at all, the report warns
LEAST_ABLE = 0.2


@dataclass(frozen=True)
class Campaign:
    """Counts of a campaign, small whatever its size.

    Attributes:
        cells: one row per cell: IDENTITY, folder, seed, planned, rate (NaN for faults that hit one
            neuron), correction (the protection, where it changed what was executed, else ""), fits
            (what its manifest says of that), the counts of `counting.CellCounts` with their
            moments, nonfinite_failures, clean_images and clean_alarms (NaN where not recorded).
        failures: one row per failing run: cell (row of `cells`), run_id, sample_index, kind, alarm,
            weight.
        base: one row per detector (DETECTOR) with the base metrics of its manifests; those of the
            method without its perturbation as unperturbed_*, NaN where there are none.
        declared: the outcome that its cells were judged by.
        warnings: what was left out or is odd, in plain sentences that name it.
        estimand: the population that its rates describe, one of `tally.ESTIMANDS`.
        interval: method of its intervals, a key of `progip.statistics.METHODS`.
        folders: where each cell lies, and its manifest; row i of `cells` is folders[i].
        beside: whether published figures were asked for, whatever networks and data these are.
        memory: what was computed from it once, by those who compute it.
    """

    cells: pd.DataFrame
    failures: pd.DataFrame
    base: pd.DataFrame
    declared: Declared = OOD_VERDICT
    warnings: tuple[str, ...] = ()
    estimand: str = "layer_mean"
    interval: str = "wilson"
    folders: tuple[CellFolder, ...] = ()
    beside: bool = False
    memory: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def kinds(self) -> Kinds:
        """The kinds of rows that are counted."""
        return kinds_of(self.declared)

    @cached_property
    def single(self) -> "Campaign":
        """Without the cells of faults at a rate; rows keep their names."""
        cells = self.cells[self.cells["rate"].isna()]
        failures = self.failures[self.failures["cell"].isin(cells.index)]
        return replace(self, cells=cells, failures=failures, memory={})

    @cached_property
    def executions(self) -> tuple[ExecutedRuns, ...]:
        """What the figures need beyond `cells`, one an execution; read when first asked for.

        Of the network itself, that is: not those of correcting protections.
        """
        return tuple(e for e in observe(self.folders) if not e.names["correction"])

    def rows(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The stored rows of its cells, one a run, in order of cells and runs.

        Args:
            columns: which; None for every column that one of the cells produces (many: name those
                that you need where there are millions of runs).

        Returns:
            Where a cell does not produce a column its rows are empty there (``pd.NA``, NaN, None).

        Raises:
            ProgipError: no cell produces a column that is named, or a file cannot be read.
        """
        return raw_rows(self.folders, columns)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        allow_mixed: bool = False,
        estimand: str | None = None,
        interval: str = "wilson",
        beside: bool = False,
        outcome: str | None = None,
    ) -> "Campaign":
        """Read every cell under a folder, finished or not.

        Rows are streamed; ten million take seconds. Where a stopping rule gave cells different
        numbers of runs each cell counts alike; else cells count by the runs they have done.

        Args:
            folder: of the campaign.
            allow_mixed: add up cells of different seeds, weights or data.
            estimand: the population to describe, one of `tally.ESTIMANDS`; None for that of the
                fault model.
            interval: method of the intervals, a key of `progip.statistics.METHODS`.
            beside: show published figures whatever networks and data these are.
            outcome: name of the outcome to report, where cells were judged by several.

        Raises:
            ProgipError: there is no campaign, a manifest is broken, weights do not match the
                sampling plan, or one cell is in two folders.
        """
        found = _of_outcome(find_cells(Path(folder)), outcome)
        found, warnings = agreeing(found, allow_mixed)
        warnings += _commits(found)
        natives = sorted({tally.native_estimand(cell.manifest) for cell in found})
        if estimand is None and len(natives) > 1:
            raise ProgipError(
                f"the cells describe different populations ({', '.join(natives)}); choose one with "
                "--estimand"
            )
        rows, failures = [], []
        for number, cell in enumerate(found):
            counted = count_cell(cell, estimand)
            rows.append({**_describe(cell), **counted.counts})
            failures.append(counted.failures.assign(cell=number))
            warnings += counted.warnings
        if any(cell.manifest.get("stopping") for cell in found):
            _count_alike(rows, failures)
        warnings += _rarely_correct(rows, declared_in(found[0].manifest))
        base, odd = base_metrics(found, DETECTOR)
        return cls(
            pd.DataFrame(rows),
            pd.concat(failures, ignore_index=True),
            base,
            declared_in(found[0].manifest),
            tuple(warnings + odd),
            estimand or natives[0],
            interval,
            tuple(found),
            beside,
        )


def by_group(
    frame: pd.DataFrame, names: Sequence[str]
) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The parts of a frame with equal values in the named columns, in order of appearance."""
    for key, found in frame.groupby(list(names), sort=False):
        yield tuple(str(name) for name in (key if isinstance(key, tuple) else (key,))), found


def _of_outcome(cells: list[CellFolder], outcome: str | None) -> list[CellFolder]:
    """The cells judged by an outcome. Raises ProgipError where that is not clear."""
    by_name: dict[str, list[CellFolder]] = {}
    for cell in cells:
        by_name.setdefault(declared_in(cell.manifest).name, []).append(cell)
    if outcome is None and len(by_name) > 1:
        raise ProgipError(
            f"the cells were judged by different outcomes ({', '.join(sorted(by_name))}); choose "
            "one with --outcome"
        )
    if outcome is not None and outcome not in by_name:
        raise ProgipError(
            f"no cell was judged by the outcome '{outcome}'; there are {', '.join(sorted(by_name))}"
        )
    return by_name[outcome] if outcome is not None else cells


def _count_alike(rows: list[dict[str, Any]], failures: list[pd.DataFrame]) -> None:
    """Scale the weights of every cell to those of the largest."""
    most = max(row["done"] for row in rows)
    for row, failed in zip(rows, failures, strict=True):
        if not row["done"]:
            continue
        factor = most / row["done"]
        row["moments"] = row["moments"].scaled(factor)
        row["means"] = {name: mean.scaled(factor) for name, mean in row["means"].items()}
        for name in [name for name in row if name.endswith("_w")]:
            row[name] *= factor
            row[f"{name}2"] *= factor**2
        failed["weight"] *= factor


def _describe(cell: CellFolder) -> dict[str, Any]:
    manifest = cell.manifest
    clean = manifest.get("clean") or {}
    return {
        **{name: str(manifest["cell"][name]) for name in IDENTITY},
        "folder": cell.name,
        "seed": manifest["seed"],
        "planned": int(manifest["runs"]),
        "rate": fault_rate(cell),
        "correction": correction_of(cell),
        "fits": part(manifest, "fits"),
        "clean_images": as_number(clean.get("images")),
        "clean_alarms": as_number(clean.get("alarms")),
    }


def _rarely_correct(rows: list[dict[str, Any]], declared: Declared) -> list[str]:
    """A warning where so few runs could fail that their rates say little of the network."""
    if not declared.base:
        return []
    cells = pd.DataFrame(rows).drop_duplicates([n for n in IDENTITY if n != "protection"])
    axes = ["model", "dataset", "ood_dataset", "population", "ood_method", "condition"]
    found = []
    for key, group in by_group(cells, axes):
        done, able = int(group["done"].sum()), int(group[declared.base].sum())
        if able < LEAST_ABLE * done:
            names = " ".join(name for name in key if name not in ("none", USUAL["condition"]))
            found.append(
                f"only {able:,} of {done:,} runs of {names} are "
                f"{declared.base_title.lower()}, less than a fifth: the rates are of these alone, "
                "and a network or threshold that is so often wrong may not be the one you mean"
            )
    return found


def _commits(cells: list[CellFolder]) -> list[str]:
    """A note when the cells were made by more than one state of the code."""
    commits = sorted(
        {str(cell.manifest["commit"]) for cell in cells if cell.manifest.get("commit")}
    )
    if len(commits) < 2:
        return []
    return [f"cells were made by {len(commits)} commits: {', '.join(c[:12] for c in commits)}"]

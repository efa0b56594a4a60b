"""Compares a whole sweep with what its folder holds, before the first of its jobs starts."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from progip.campaign.settings import CellSettings
from progip.campaign.settings_identity import of_execution, of_judging, of_subject
from progip.config.building import cell_settings
from progip.config.entry import unset_variable
from progip.errors import ProgipError
from progip.launching.launched import accepted_overrides, job_overrides, sweep_of, swept_in
from progip.storage.manifests import has_rows, read_manifest, settings_differences

log = logging.getLogger(__name__)

_SHOWN = 3


class SweepCheck(Callback):
    """Hydra calls this before a sweep; a sweep that must not be started ends here.

    Hydra turns errors of callbacks into warnings, so the refusal is printed and the process ends.
    """

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Refuse a sweep of which one cell holds rows of another configuration."""
        try:
            check_first(config)
            check_sweep(config)
        except ProgipError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)


def check_first(config: DictConfig) -> None:
    """Ask whether the first cell of a sweep has its environment variables; all would say the same.

    Args:
        config: of the whole sweep, as Hydra composed it, with its node ``hydra``.

    Raises:
        ProgipError: naming the key and the variable.
    """
    given, task = _swept(config)
    first = job_overrides(swept_in(given, task))[:1]
    loader = GlobalHydra.instance().config_loader()
    try:
        for overrides in first:
            OmegaConf.to_container(
                _without_hydra(loader.load_sweep_config(config, overrides)), resolve=True
            )
    except (ProgipError, HydraException, OmegaConfBaseException) as error:
        if said := unset_variable(error):
            raise ProgipError(f"nothing was started: {said}") from error
        return  # the job itself says what is wrong, and the others run


def _swept(config: DictConfig) -> tuple[dict[str, str], list[str]]:
    """The swept choices of the campaign file, and the overrides of the command line."""
    hydra = config.hydra
    given = {str(key): str(value) for key, value in (hydra.sweeper.params or {}).items()}
    return given, [str(override) for override in hydra.overrides.task]


def check_sweep(config: DictConfig) -> None:
    """Compare every cell of a sweep with the rows in its folder, by what settings tell.

    What else differs (code, the content of weights and data) is found by the cells themselves. The
    very command that was accepted last is not compared again.

    Args:
        config: of the whole sweep, as Hydra composed it, with its node ``hydra``.

    Raises:
        ProgipError: naming what differs, cells, and the command that was accepted.
    """
    given, task = _swept(config)
    folder = Path(config.hydra.sweep.dir)
    if accepted_overrides(folder) == (given, task) or not any(folder.rglob("part-*.parquet")):
        return
    refused: dict[str, list[str]] = {}
    jobs = job_overrides(swept_in(given, task))
    loader = GlobalHydra.instance().config_loader()
    for overrides in jobs:
        try:
            job = loader.load_sweep_config(config, overrides)
            settings = cell_settings(_without_hydra(job))
        except (ProgipError, HydraException, OmegaConfBaseException):
            continue  # the job itself says what is wrong, and the others run
        for said in differences(settings):
            name = Path(os.path.relpath(settings.folder, folder)).as_posix()
            refused.setdefault(said, []).append(name)
    if not refused:
        return
    cells = list(dict.fromkeys(name for names in refused.values() for name in names))
    more = f" and {len(cells) - _SHOWN} more" if len(cells) > _SHOWN else ""
    known = sweep_of(folder)
    raise ProgipError(
        f"nothing was started: {len(cells)} of the sweep's {len(jobs)} cells hold rows of another "
        f"configuration: {'; '.join(refused)} ({', '.join(cells[:_SHOWN])}{more}). Choose another "
        "campaign name (name=...)"
        + (f", or go on with what was accepted: {known.command}" if known else "")
    )


def differences(settings: CellSettings) -> list[str]:
    """How a cell's settings differ from those that its rows, and its runs, were made by."""
    runs = {**of_subject(settings.subject), **of_execution(settings)}
    found: list[str] = []
    folders = (
        (settings.execution_folder, runs),
        (settings.folder, {**runs, **of_judging(settings)}),
    )
    for folder, wanted in folders:
        manifest = read_manifest(folder) if has_rows(folder) else None
        if manifest is not None:
            held = {key: manifest["identity"].get(key, "(absent)") for key in wanted}
            found += settings_differences(held, wanted)
    return list(dict.fromkeys(found))


def _without_hydra(config: DictConfig) -> DictConfig:
    """A composed job as ``cell_settings`` takes it."""
    own = config.copy()
    OmegaConf.set_struct(own, False)
    folder = own.pop("hydra")
    del folder
    return own

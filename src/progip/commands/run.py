"""The Hydra application: run one cell of a campaign, or with -m a sweep of cells."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from progip.campaign.runner import run_cell
from progip.commands.run_help import wanted_help
from progip.config import CONF, cell_folder, cell_settings, entry, register, resolved
from progip.config.checks import check_defaults, check_overrides
from progip.config.entry import explain, is_users
from progip.launching.launched import keep_command
from progip.launching.placing import placed
from progip.storage.crash_log import failures_recorded

log = logging.getLogger("progip")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(cfg: DictConfig) -> None:
    """One Hydra job: one cell, or a part of one."""
    check_defaults(cfg)
    hydra, folder = HydraConfig.get(), cell_folder(cfg)
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    check_overrides(hydra.overrides.task, str(cfg.sampling.get("name", "")))
    try:
        with failures_recorded(folder):
            accepted = partial(keep_command, folder, sweep)
            run_cell(cell_settings(placed(cfg)), resolved(cfg), accepted)
    except Exception as error:
        if sweep:  # the others go on; say now which failed
            said = explain(error) if is_users(error) else error
            log.error("cell %s failed: %s", cfg.cell, said, exc_info=not is_users(error))
        raise


def add(commands: Any) -> None:
    """Make the command known to the help; it is Hydra's, not argparse's."""
    commands.add_parser("run", help="Run one cell of a campaign, or with -m a sweep of cells.")


def main() -> None:
    """Run what ``sys.argv`` says, as ``python run.py`` and ``progip run`` do."""
    entry(_start)


def _start() -> None:
    if (text := wanted_help(sys.argv)) is not None:
        print(text)
        return
    register()
    job()

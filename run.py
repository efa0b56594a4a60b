"""Run one cell of a campaign, or with -m a sweep of cells. Usage: README.md."""

import logging
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("PROJECT_ROOT", str(Path(__file__).resolve().parent))

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from progip.campaign.runner import run_cell
from progip.config import cell_folder, cell_settings, entry, register, resolved
from progip.config.checks import check_defaults, check_overrides
from progip.errors import ProgipError
from progip.launching.launched import keep_command
from progip.launching.placing import placed
from progip.storage.crash_log import failures_recorded

log = logging.getLogger("progip")
register()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
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
            defect = not isinstance(error, ProgipError)
            log.error("cell %s failed: %s", cfg.cell, error, exc_info=defect)
        raise


if __name__ == "__main__":
    entry(main)

"""Configurations composed outside Hydra's own entry point, and resolved for manifests."""

import os
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from progip.config.names import existing
from progip.config.schema import register
from progip.config.search_path import CONF
from progip.errors import ProgipError
from progip.launching.launched import job_overrides, swept_in


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration with every interpolation replaced, for manifests."""
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def composed(
    overrides: list[str],
    folder: str | Path | None = None,
    campaign: str | None = None,
    primary: str = "config",
) -> DictConfig:
    """The configuration that ``progip run`` would see, composed from YAML files.

    Args:
        folder: of the YAML files; None for those of progip.
        primary: the file to start from where there is no ``campaign``.
        campaign: the name of a file to start from, in the folder ``campaigns`` beside ``folder``
            or here; what it sweeps is left out.

    Raises:
        ProgipError: the folder or the campaign is not there.
    """
    return _compose(overrides, folder, campaign, primary)


def sweep_of_campaign(
    overrides: list[str], campaign: str | None = None, folder: str | Path | None = None
) -> list[list[str]]:
    """The overrides of every cell that a sweep of these would run.

    Args:
        overrides: as on the command line; a key may have several values.
        campaign: as in ``composed``.
    """
    base = _compose([], folder, campaign, "config", return_hydra_config=True)
    params = OmegaConf.to_container(base.hydra.sweeper.params or {}, resolve=False)
    return job_overrides(swept_in(params, overrides))  # type: ignore[arg-type]


def _compose(
    overrides: list[str],
    folder: str | Path | None,
    campaign: str | None,
    primary: str,
    **more: bool,
) -> DictConfig:
    path = CONF if folder is None else Path(folder).resolve()
    if not (path / "config.yaml").exists():
        raise ProgipError(f"{path} holds no config.yaml; give the folder that does, or none")
    if folder is not None:
        os.environ.setdefault("PROJECT_ROOT", str(path.parent))
    register()
    if campaign is None:
        with initialize_config_dir(str(path), version_base="1.3"):
            return compose(primary, overrides, **more)
    places = (Path("campaigns").resolve(), path.parent / "campaigns")
    known = sorted({file.stem for place in places for file in place.glob("*.yaml")})
    if campaign not in known:
        raise ProgipError(f"campaign={campaign}: no such file. {existing(campaign, known)}")
    campaigns = next(place for place in places if (place / f"{campaign}.yaml").exists())
    with initialize_config_dir(str(campaigns), version_base="1.3"):
        return compose(campaign, [f"hydra.searchpath=[file://{path}]", *overrides], **more)

"""From YAML to settings; the only package below the entry points to know Hydra."""

from progip.config.building import build, cell_folder, cell_settings
from progip.config.composing import composed, resolved
from progip.config.entry import entry, explain
from progip.config.schema import GROUPS, register
from progip.config.search_path import CAMPAIGNS, CONF

__all__ = [
    "CAMPAIGNS",
    "CONF",
    "GROUPS",
    "build",
    "cell_folder",
    "cell_settings",
    "composed",
    "entry",
    "explain",
    "register",
    "resolved",
]

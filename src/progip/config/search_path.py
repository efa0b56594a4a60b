"""Where Hydra finds YAML files: those that come with progip, and those of the folder one is in."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

_PACKAGE = Path(__file__).resolve().parents[1]
_HOME = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1]
#: the configuration and the campaign files of progip: a wheel holds them (setup.py), and a checkout
#: has them at its top
CONF, CAMPAIGNS = _HOME / "conf", _HOME / "campaigns"


class ProgipSearchPath(SearchPathPlugin):
    """Adds campaign files, and the folders conf and campaigns of the folder one is in.

    They come last: a choice of progip is not replaced by one of the same name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in (CAMPAIGNS, *own_folders()):
            search_path.append("progip", f"file://{folder}")


def own_folders() -> list[Path]:
    """The folders conf and campaigns here, where they are others than those of progip."""
    here = (Path(name).resolve() for name in ("conf", "campaigns"))
    return [folder for folder in here if folder.is_dir() and folder not in (CONF, CAMPAIGNS)]

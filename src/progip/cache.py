"""Where downloads and golden results are kept; the environment variable PROGIP_CACHE moves it."""

import os
from pathlib import Path

import platformdirs

ENVIRONMENT_VARIABLE = "PROGIP_CACHE"


def cache_root() -> Path:
    """The cache folder: ``$PROGIP_CACHE``, else the user cache folder of the platform."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("progip"))

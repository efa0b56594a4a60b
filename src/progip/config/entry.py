"""Entry points: a user's mistake becomes one message, signals leave nothing behind."""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from progip.config.names import NO_DEFAULTS, a_list, existing
from progip.config.search_path import CAMPAIGNS, own_folders
from progip.errors import ProgipError

DATA = "PROGIP_DATA, for one, names the folder of images and weights (docs/data.md)"


def entry(main: Callable[[], Any]) -> None:
    """Call an entry point; a user's mistake becomes one message on stderr and exit code 1.

    Hydra's own handler would print its errors without what exists; it is switched off through its
    documented environment variable. Set that variable yourself to see tracebacks.
    """
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"
    signal.signal(signal.SIGTERM, _terminate)  # Python's own way would leave claims behind
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # ``| head`` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt as stop:
        number = stop.args[0] if stop.args else signal.SIGINT
        print("interrupted; what is stored stays, and the same command goes on", file=sys.stderr)
        sys.exit(128 + int(number))
    except (ProgipError, HydraException, OmegaConfBaseException, YAMLError, OSError) as error:
        if debug or not is_users(error):
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _terminate(number: int, _: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not break the tidying up
    raise KeyboardInterrupt(number)


_USERS_OS_ERRORS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT,
    errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip


def is_users(error: Exception) -> bool:
    """Whether an error is a user's mistake, or of the machine, and can be explained."""
    known = (ProgipError, HydraException, OmegaConfBaseException, YAMLError, OSError)
    if not isinstance(error, known):
        return False
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        return error.errno in _USERS_OS_ERRORS
    return True


def _of_hydra(text: str) -> str:
    """What to do about a launcher or file that is not there, or no list; "" for anything else."""
    launcher = re.search(r"'hydra/launcher/((joblib|submitit)\w*)'", text)
    if launcher:
        return (
            f"launcher {launcher[1]} is not installed; install it with: "
            f"pip install 'progip[{launcher[2]}]'"
        )
    single = re.match(r"Error merging override ([\w.]+)=(\S+)", text)
    if single and "is not a ListConfig" in text:
        return f"{single[1]}: {a_list(single[2])}"
    wanted = re.match(r"Cannot find primary config '(.+?)'", text)
    if wanted:
        words = sys.argv
        at = next((i for i, word in enumerate(words) if word in ("--config-dir", "-cd")), None)
        own = [Path(words[at + 1])] if at is not None and at + 1 < len(words) else []
        folders = own + [f for f in (CAMPAIGNS, *own_folders()) if f.name == "campaigns"]
        names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
        where = f"in {own[0]} or among" if own else "among"
        return f"no {wanted[1]}.yaml {where} the campaign files. {existing(wanted[1], list(names))}"
    return ""


def unset_variable(error: BaseException) -> str:
    """Which key needs which environment variable; "" where that is not what is wrong."""
    unset = re.search(r"Environment variable '(\w+)' not found", str(error))
    if unset is None:
        return ""
    lines = [line.strip() for line in str(error).splitlines()]
    key = next((line.split()[-1] for line in lines if line.startswith("full_key")), "a key")
    return f"{key} needs the environment variable {unset[1]}, which is not set: {DATA}"


def explain(error: BaseException) -> str:
    """One message that names the culprit and what exists instead."""
    if isinstance(error, ProgipError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, HydraException):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; results go below outputs=FOLDER"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, YAMLError):
        place = getattr(error, "problem_mark", None)
        where = f"{place.name}, line {place.line + 1}: " if place is not None else ""
        problem = getattr(error, "problem", None) or lines[0]
        return f"{where}not valid YAML ({problem}); correct the file"
    if isinstance(error, HydraException) and (
        said := _of_hydra(f"{' '.join(lines)} {error.__cause__}")
    ):
        return said
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        what = lines[0].split(". To append")[0].rstrip(".")
        parent, key = cause.parent_node, str(cause.key)
        if isinstance(parent, DictConfig) and key not in parent:
            if "model" not in parent and "hydra" in parent:  # the whole, without conf/config.yaml
                return NO_DEFAULTS
            return f"{what}. {existing(key, [str(name) for name in parent])}"
        return what if str(cause).splitlines()[0] in what else f"{what}: {cause}".splitlines()[0]
    if isinstance(error, HydraException):
        ends = [i for i, line in enumerate(lines) if line.startswith("Config search path")]
        return " ".join(lines[: ends[0]] if ends else lines)
    if said := unset_variable(error):
        return said
    return " ".join(lines[:1] + [line for line in lines[1:] if line.startswith("full_key")])

"""run.py with a stopwatch: what each part of a command costs, in processor seconds, as JSON.

    python benchmarks/measured_command.py RESULT.json [overrides and options of run.py]

Used by bookkeeping.py. Every thread of the process counts.
"""

import functools
import json
import os
import runpy
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
spent: Counter[str] = Counter()

#: what is no execution: the share that must be small
BOOKKEEPING = ("planning", "columns", "judging", "writing", "Hydra, claims, manifests")


def timed(owner: Any, name: str, part: str) -> None:
    """Count the processor time of a function under the name of a part."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begun = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.process_time() - begun

    setattr(owner, name, wrapper)


def main() -> None:
    """Run the command; the result is written whatever becomes of it."""
    from progip.campaign import cell, execution, runner, subject
    from progip.campaign.planning import Planner

    spent["start of Python, imports"] = time.process_time()
    timed(cell, "prepare", "data, network")
    timed(subject, "golden_work", "golden work")
    timed(subject, "Traced", "tracing")
    timed(execution.IncrementalExecutor, "run", "runs")
    timed(execution.Execution, "_check", "self-check")
    timed(execution, "observed_table", "columns")
    timed(Planner, "plan", "planning")
    timed(cell, "judge", "judging")
    timed(runner.store, "write_shard", "writing")
    result = Path(sys.argv[1])
    sys.argv = [str(ROOT / "run.py"), "--config-path", str(ROOT / "conf"), *sys.argv[2:]]
    os.chdir(ROOT)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        total = time.process_time()
        rest = total - sum(spent.values())
        result.write_text(json.dumps({**spent, BOOKKEEPING[-1]: rest}))


if __name__ == "__main__":
    main()

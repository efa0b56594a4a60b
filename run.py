"""Run one cell of a campaign, or with -m a sweep of cells. Usage: README.md, --help.

In a checkout this is ``progip run``, with results in its folder outputs wherever it is called.
(fish completes a script only where it finds the word @hydra.main in it.)
"""

import os
from pathlib import Path

os.environ.setdefault("PROJECT_ROOT", str(Path(__file__).resolve().parent))

from progip.commands.run import main

if __name__ == "__main__":
    main()

"""``python -m progip``: the command line."""

from progip.cli import main

main()

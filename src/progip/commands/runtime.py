"""``progip runtime``: what protections cost where they are deployed."""

import argparse
from typing import Any

from progip.commands.report import BESIDE
from progip.config import build, cell_settings, composed
from progip.errors import ProgipError
from progip.protections.base import Protection


def add(commands: Any) -> None:
    """Make the command known."""
    sub = commands.add_parser("runtime", help=runtime.__doc__, description=runtime.__doc__)
    sub.add_argument(
        "overrides", nargs="*", help="as for `progip run`: model=resnet20 dataset=cifar10"
    )
    sub.add_argument("--campaign", help="start from campaigns/NAME.yaml, without its sweep")
    sub.add_argument("--methods", nargs="+", default=["odin", "mahalanobis"], metavar="METHOD")
    sub.add_argument("--protections", nargs="+", default=["progip", "ranger"], metavar="NAME")
    sub.add_argument("--batches", nargs="+", type=int, default=[1, 32], metavar="IMAGES")
    sub.add_argument("--seconds", type=float, default=60, help="for each method and batch size")
    sub.add_argument("--repetitions", type=int, default=4000, help="at most, of each protection")
    sub.add_argument("--threads", type=int, default=1, help="of torch")
    sub.add_argument("--no-pin", action="store_true", help="let the system move the process about")
    sub.add_argument("--out", default="outputs/runtime", help="a folder, may be a campaign's")
    sub.add_argument("--beside", action="store_true", help=BESIDE)
    sub.set_defaults(action=runtime)


def runtime(arguments: argparse.Namespace) -> None:
    """Time protections where they are deployed, in pairs with the unprotected detector."""
    from progip.deploy.runtime import Effort, measure_runtime, write_runtime
    from progip.report.runtime_table import write_table

    for option in ("methods", "protections"):
        for name in getattr(arguments, option):
            if "=" in name:
                raise ProgipError(
                    f"runtime --{option}: '{name}' is no name; give overrides before the options"
                )
    effort = Effort(
        seconds=arguments.seconds,
        repetitions=arguments.repetitions,
        threads=arguments.threads,
        pin=not arguments.no_pin,
    )
    for method in arguments.methods:
        overrides = [f"ood_method={method}", *arguments.overrides]
        # the subject alone: which protections watch it comes after
        cfg = composed([*overrides, "protection=none"], campaign=arguments.campaign)
        protections = [
            build(
                composed(
                    [*overrides, f"protection={name}"], campaign=arguments.campaign
                ).protection,
                Protection,
                "protection",
            )
            for name in arguments.protections
        ]
        for batch in arguments.batches:
            measured = measure_runtime(cell_settings(cfg), protections, batch, effort)
            print(write_runtime(arguments.out, measured))
    print(f"\n{write_table(arguments.out, arguments.beside)}")

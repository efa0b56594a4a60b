"""Whether everything that a component needs is produced by something: refused by name if not."""

from collections.abc import Collection, Sequence

from progip.errors import ProgipError
from progip.probes import Probe, optional_probes
from progip.records import lacking


def probes_for(
    needs: Collection[str], computes: Collection[str], among: Sequence[Probe] | None = None
) -> tuple[Probe, ...]:
    """The probes that produce what is needed and an OOD method does not compute.

    For a deployed detector, which observes what its protection needs without being told.

    Args:
        among: those there are; None: all of this package, made with their default options.
    """
    if among is None:
        among = tuple(probe() for probe in optional_probes().values())
    return tuple(
        probe
        for probe in among
        if {column.name for column in probe.produces} & (set(needs) - set(computes))
    )


def computes_all(probe: Probe | type[Probe], computes: Collection[str]) -> bool:
    """Whether an OOD method computes the evidence that a probe needs."""
    return set(probe.needs) <= set(computes)


def shown_by(computes: Collection[str], probes: Sequence[Probe], truth: bool = False) -> list[str]:
    """The columns that an OOD method and probes show; arguments as of ``check_needs``."""
    columns = [
        c
        for probe in probes
        if computes_all(probe, computes)
        for c in probe.produces
        if truth or not c.truth
    ]
    return [*computes, *(c.name for c in columns)]


def check_needs(
    owner: str,
    needs: Collection[str],
    method: str,
    computes: Collection[str],
    probes: Sequence[Probe] = (),
    truth: bool = False,
) -> None:
    """Refuse a component that looks at what nothing produces.

    Of a second forward pass that is never made a protection of ranges can do without: see
    ``records.lacking``.

    Args:
        owner: the component in words: ``protection 'progip'``.
        needs: columns, named as in golden rows.
        method: name of the OOD method.
        computes: ``OODMethod.evidence``.
        probes: those switched on.
        truth: whether it may look at columns that are made with the label.

    Raises:
        ProgipError: naming the columns, and the probe that would produce them.
    """
    produced = shown_by(computes, probes, truth)
    missing = lacking(needs, produced)
    if not missing:
        return
    found = {
        column.name: name
        for name, probe in optional_probes().items()
        if computes_all(probe, computes)
        for column in probe.produces
        if truth or not column.truth
    }
    if set(missing) <= set(found):
        more = list(dict.fromkeys(found[name] for name in missing))
        on = ",".join([*(probe.name for probe in probes), *more])
        which = (
            f"the probe '{more[0]}' produces"
            if len(more) == 1
            else (f"the probes {', '.join(more)} produce")
        )
        raise ProgipError(
            f"{owner} needs {', '.join(missing)}, which {which}; switch "
            f"{'it' if len(more) == 1 else 'them'} on with probes=[{on}]"
        )
    raise ProgipError(
        f"{owner} looks at {', '.join(missing)}, which ood_method '{method}' does not "
        f"compute (it computes {', '.join(computes)}) and no probe produces; choose "
        "another ood_method or protection. A protection of one's own declares what it looks at "
        "in the class attribute watches, a method its passes, a probe its columns in produces"
    )

"""What is observed of every execution, one class per file; each declares the columns it produces.

``DetectionProbe`` and ``RangeProbe`` are always there. Others are switched on by name:
``probes=[largest_logit]``, or by class for one of your own: ``probes=[package.module.Class]``. What
follows a colon is the option of one that has an option: ``probes=['layer_traces:layer.*relu2']``.
"""

import importlib
import pkgutil

from progip.errors import ProgipError
from progip.probes.base import Observation, Probe
from progip.probes.corrections import CorrectionProbe
from progip.probes.detection import DetectionProbe
from progip.probes.ranges import RangeProbe

__all__ = [
    "BASE",
    "DetectionProbe",
    "Observation",
    "Probe",
    "RangeProbe",
    "optional_probes",
    "probes_named",
]

#: those of every detector; a pipeline makes them itself, as it does ``CorrectionProbe``
BASE: tuple[type[Probe], ...] = (DetectionProbe, RangeProbe)


def optional_probes() -> dict[str, type[Probe]]:
    """Those of this folder that a configuration can switch on, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    made_elsewhere = {*BASE, CorrectionProbe}
    return {
        cls.name: cls
        for cls in sorted(Probe.__subclasses__(), key=lambda cls: cls.__name__)
        if cls.__module__.startswith(f"{__name__}.") and cls not in made_elsewhere
    }


def probes_named(names: list[str]) -> tuple[Probe, ...]:
    """The probes that a configuration switches on.

    Args:
        names: of this folder's, or ``package.module.Class`` for one of your own; with ``:OPTION``
            where it has one.

    Raises:
        ProgipError: there is none of that name, or two make the same column.
    """
    known = optional_probes()
    found: list[Probe] = []
    for entry in names:
        name, colon, option = entry.partition(":")
        cls = known.get(name)
        if cls is None:
            module, _, own = name.rpartition(".")
            try:
                cls = getattr(importlib.import_module(module), own)
            except (ImportError, AttributeError, ValueError) as error:
                raise ProgipError(
                    f"probes: '{name}' is no probe ({error}). There are: {', '.join(known)}; or "
                    "give package.module.Class"
                ) from error
        if not (isinstance(cls, type) and issubclass(cls, Probe)):
            raise ProgipError(f"probes: {name} is not a Probe")
        try:
            found.append(cls(option) if colon else cls())  # type: ignore[call-arg]
        except TypeError as error:
            raise ProgipError(f"probes: '{entry}': {error}; options stand after a colon") from error
    seen: dict[str, str] = {c.name: cls.name for cls in BASE for c in cls.produces}
    for probe in found:
        for column in probe.produces:
            if column.name in seen:
                raise ProgipError(
                    f"probes: '{probe.name}' and '{seen[column.name]}' both produce the column "
                    f"{column.name}; leave one out"
                )
            seen[column.name] = probe.name
    return tuple(found)

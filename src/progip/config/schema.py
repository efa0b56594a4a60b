"""Every key of a configuration and its type, as Hydra knows them."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import MISSING, OmegaConf

from progip.campaign.sizing import Sizing
from progip.conditions.base import Condition
from progip.config.search_path import ProgipSearchPath
from progip.datasets.base import Dataset
from progip.fault_models.base import FaultModel
from progip.models.base import Model
from progip.models.dynamic.space import Space
from progip.models.heads.base import Head
from progip.number_formats.base import NumberFormat
from progip.ood_methods.base import OODMethod
from progip.outcomes.base import Outcome
from progip.protections.base import Protection
from progip.sampling.base import SamplingPlan
from progip.stopping.base import StoppingRule
from progip.students.procedures import Procedure
from progip.students.stages import Training

GROUPS: dict[str, type] = {
    "model": Model,
    "number_format": NumberFormat,
    "dataset": Dataset,
    "ood_dataset": Dataset,
    "ood_method": OODMethod,
    "protection": Protection,
    "outcome": Outcome,
    "condition": Condition,
    "fault_model": FaultModel,
    "sampling": SamplingPlan,
    "stopping": StoppingRule,
}
#: options of a group that are components of their own, chosen like groups: ``model.head=linear``
PARTS: dict[type, dict[str, type]] = {
    Model: {"head": Head},
    Training: {"space": Space, "procedure": Procedure},
}


@dataclass
class FaultPass:
    """The pass a fault hits (``conf/pass``)."""

    name: str = MISSING


@dataclass
class Schema:
    """Every top-level key with its type; a wrong key or type is refused by name.

    Groups are checked against the dataclass their ``_target_`` names, in ``build``.
    """

    name: str = MISSING
    runs: int = MISSING
    seed: int = MISSING
    population: str = MISSING
    batch_size: int | None = MISSING
    shard_size: int = MISSING
    device: str = MISSING
    threads: int = MISSING
    executor: str = MISSING
    golden_memory: int | None = MISSING
    channels_last: bool = MISSING
    self_check: float = MISSING
    part: int = MISSING
    groups: str | None = None
    probes: list[str] = field(default_factory=list)
    outputs: str = MISSING
    cell: str = MISSING
    model: dict[str, Any] = field(default_factory=dict)
    number_format: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    ood_dataset: dict[str, Any] = field(default_factory=dict)
    ood_method: dict[str, Any] = field(default_factory=dict)
    protection: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] = field(default_factory=dict)
    condition: dict[str, Any] = field(default_factory=dict)
    fault_model: dict[str, Any] = field(default_factory=dict)
    fault_pass: FaultPass = field(default_factory=FaultPass)
    sampling: dict[str, Any] = field(default_factory=dict)
    stopping: dict[str, Any] = field(default_factory=dict)
    sizing: Sizing = field(default_factory=Sizing)


@dataclass
class AttackSchema(Schema):
    """The same for ``python -m progip attack``: the attack."""

    attack: dict[str, Any] = field(default_factory=dict)


@dataclass
class StudentsSchema(AttackSchema):
    """The same for ``python -m progip students``: how students are trained."""

    students: dict[str, Any] = field(default_factory=dict)


def register() -> None:
    """Make the schema known to Hydra under the name ``schema``, and where YAML files are found."""
    Plugins.instance().register(ProgipSearchPath)
    ConfigStore.instance().store(name="schema", node=Schema)
    ConfigStore.instance().store(name="attack_schema", node=AttackSchema)
    ConfigStore.instance().store(name="students_schema", node=StudentsSchema)
    OmegaConf.register_new_resolver("unless", _unless, replace=True)


def _unless(name: str, usual: str) -> str:
    """Part of a folder's name: ``-NAME``, or nothing for the usual one."""
    return "" if name == usual else f"-{name}"

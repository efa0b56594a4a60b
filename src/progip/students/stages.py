"""Which dimensions of a dynamic network are opened when, and how long each stage is trained."""

from dataclasses import dataclass, field, replace
from typing import Any

from progip.errors import ProgipError
from progip.models.dynamic.space import Space
from progip.models.recipe import Recipe
from progip.students.procedures import TRADES, Procedure

TEACHERS = ("largest", "model")
STARTS = ("teacher", "scratch")


@dataclass(kw_only=True)
class Stage:
    """One stage: it begins with what the one before left.

    Attributes:
        name: of its file.
        opened: by dimension the values that may be drawn; the largest in all others.
        epochs, learning_rate: the rate falls to 0 as a cosine.
        students: drawn for each step; their gradients are added up.
        sort: put hidden channels in the order of importance first.
    """

    name: str
    opened: dict[str, Any] = field(default_factory=dict)  # lists of numbers, see _check
    epochs: int = 120
    learning_rate: float = 0.03
    students: int = 1
    sort: bool = False


@dataclass(kw_only=True)
class Teacher:
    """The teacher: the largest network of the space, trained by TRADES, or a model of one's own.

    Attributes:
        source: ``largest``, or ``model``: that of ``model=``, with its weights.
        epochs, learning_rate, weight_decay, warm_up_epochs: of its training.
        procedure: TRADES and its options.
    """

    source: str = "largest"
    epochs: int = 120
    learning_rate: float = 0.1
    weight_decay: float = 2e-4
    warm_up_epochs: int = 5
    procedure: TRADES = field(default_factory=TRADES)

    def __post_init__(self) -> None:
        if self.source not in TEACHERS:
            raise ProgipError(f"students.teacher.source={self.source} must be largest or model")


@dataclass(kw_only=True)
class Search:
    """How students are searched for.

    Attributes:
        samples: random students that are measured; a fifth of them tests the predictor.
        macs, parameters: the most that a found student may cost; None: any.
        population, generations: of NSGA-II.
        layers, width: hidden layers of the predictor, and their units.
        keep: found students that are cut out and measured.
    """

    samples: int = 2000
    macs: float | None = None
    parameters: float | None = None
    population: int = 100
    generations: int = 100
    layers: int = 6
    width: int = 400
    keep: int = 4

    def __post_init__(self) -> None:
        for name, least in (("samples", 10), ("population", 4), ("generations", 1),
                            ("layers", 1), ("width", 1), ("keep", 1)):  # fmt: skip
            if getattr(self, name) < least:
                raise ProgipError(f"students.search.{name} must be at least {least}")

    def allows(self, macs: float, parameters: float) -> bool:
        """Does a student cost no more than it may?"""
        limits = ((macs, self.macs), (parameters, self.parameters))
        return all(limit is None or cost <= limit for cost, limit in limits)


@dataclass(kw_only=True)
class Training:
    """How students are trained; the fields are the options of ``conf/students``.

    Attributes:
        name: the name of the YAML file.
        space: what can be chosen.
        procedure: the loss of every stage.
        teacher: where the teacher comes from.
        stages: one after the other.
        search: how students are searched for afterwards.
        progressive: False opens everything in every stage, the ablation by uniform sampling.
        start: of the first stage: ``teacher`` (its weights) or ``scratch``.
        budget: of the attacks in procedures, which refer to it; pixel levels of 255.
        batch_size, momentum, weight_decay, crop_padding, flip: of every stage; Nesterov's momentum.
        calibration: clean training images that a student's statistics are estimated on.

    Raises:
        ProgipError: naming the option or the stage that is wrong.
    """

    name: str
    space: Space
    procedure: Procedure
    teacher: Teacher = field(default_factory=Teacher)
    stages: list[Stage] = field(default_factory=list)
    search: Search = field(default_factory=Search)
    progressive: bool = True
    start: str = "teacher"
    budget: float = 8.0
    batch_size: int = 64
    momentum: float = 0.9
    weight_decay: float = 3e-5
    crop_padding: int = 4
    flip: bool = True
    calibration: int = 2048

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise ProgipError(f"students.start={self.start} must be teacher or scratch")
        if self.start == "teacher" and self.teacher.source == "model":
            raise ProgipError(
                "students.start=teacher needs a teacher of the same space; with "
                "students.teacher.source=model give students.start=scratch"
            )
        if self.calibration < 2:
            raise ProgipError(f"students.calibration={self.calibration} must be at least 2")
        names = [stage.name for stage in self.stages]
        if not names or len({*names, "teacher"}) <= len(names):
            raise ProgipError(f"students.stages: names must be there, and differ: {names}")
        for stage in self.stages:
            self._check(stage)
        self.recipe(self.stages[0])  # refuses wrong values of its own

    def _check(self, stage: Stage) -> None:
        where = f"students.stages: '{stage.name}'"
        if stage.students < 1:
            raise ProgipError(f"{where} draws {stage.students} students a step; give at least 1")
        for name, values in stage.opened.items():
            if name not in self.space.choices:
                known = ", ".join(self.space.choices)
                raise ProgipError(f"{where} opens '{name}'; the space has {known}")
            known_values = self.space.choices[name]
            if not isinstance(values, list) or not values or not set(values) <= set(known_values):
                raise ProgipError(f"{where}: {name}={values} is not part of {known_values}")

    @property
    def planned(self) -> list[Stage]:
        """The stages as they are trained: without progress everything is open in all of them."""
        if self.progressive:
            return self.stages
        return [replace(s, opened=dict(self.space.choices), sort=False) for s in self.stages]

    def recipe(self, stage: Stage) -> Recipe:
        """Of a stage."""
        return Recipe(
            epochs=stage.epochs,
            learning_rate=stage.learning_rate,
            batch_size=self.batch_size,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
            schedule="cosine",
            crop_padding=self.crop_padding,
            flip=self.flip,
        )

    def teachers_recipe(self) -> Recipe:
        """Of the teacher."""
        teacher = self.teacher
        return replace(
            self.recipe(self.stages[0]),
            epochs=teacher.epochs,
            learning_rate=teacher.learning_rate,
            weight_decay=teacher.weight_decay,
            warm_up_epochs=teacher.warm_up_epochs,
        )

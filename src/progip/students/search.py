"""Students under a cost limit: a predictor of what a student is worth, and NSGA-II over it."""

import hashlib
import importlib.util
import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau
from sklearn.neural_network import MLPRegressor

from progip.attacks.base import Attack
from progip.datasets.base import Images
from progip.errors import ProgipError
from progip.models.dynamic.network import Cost
from progip.models.dynamic.space import Architecture, Space
from progip.models.loading import seeded, weights_fingerprint
from progip.storage.whole_files import write_whole
from progip.students.cutting import Cutter
from progip.students.stages import Search

log = logging.getLogger(__name__)
#: what is predicted, shares in [0, 1]
TARGETS = ["accuracy", "robust_accuracy"]


def measure(
    cutter: Cutter, images: Images, attack: Attack, wanted: int, folder: Path, seed: int = 0
) -> pd.DataFrame:
    """Random students with their accuracy without and under attack; goes on where it was left.

    Args:
        images: none that results are reported of.
        folder: of the file ``measured_KEY.csv``; the key is of everything the numbers depend on.

    Returns:
        One row a student: ``architecture`` (JSON) and TARGETS.
    """
    given = [weights_fingerprint(cutter.network), asdict(attack), images.fingerprint(), seed]
    key = hashlib.sha256(json.dumps(given).encode()).hexdigest()[:12]
    path = folder / f"measured_{key}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    for number in range(len(rows), wanted):
        with seeded(f"student/{seed}/{number}"):
            architecture = cutter.network.space.sample()
        found = cutter.measured(cutter.cut(architecture), images, attack, seed)
        rows.append({
            "architecture": json.dumps(architecture),
            "accuracy": found.clean.estimate,
            "robust_accuracy": found.robust.estimate,
        })  # fmt: skip
        if (number + 1) % 10 == 0 or number + 1 == wanted:
            write_whole(path, partial(pd.DataFrame(rows).to_csv, index=False))
            log.info("%d of %d students measured", number + 1, wanted)
    return pd.DataFrame(rows[:wanted])


class Predictor:
    """Accuracy and robust accuracy of a student from its architecture, by a perceptron.

    Trained on four fifths of the measured students; the others say how good it is.

    Attributes:
        quality: by target the mean absolute error, that of predicting the mean alone, and
            Kendall's tau, on students that it has not seen.
    """

    def __init__(
        self, space: Space, measured: pd.DataFrame, options: Search, seed: int = 0
    ) -> None:
        self._space = space
        codes = np.array([space.encoded(json.loads(a)) for a in measured["architecture"]])
        values = measured[TARGETS].to_numpy()
        order = np.random.default_rng(seed).permutation(len(codes))
        test, train = order[: len(order) // 5], order[len(order) // 5 :]
        self._mean, self._std = values[train].mean(0), values[train].std(0) + 1e-9
        self._model = MLPRegressor(
            hidden_layer_sizes=[options.width] * options.layers,
            max_iter=300,
            alpha=1e-3,
            random_state=seed,
        )
        self._model.fit(codes[train], (values[train] - self._mean) / self._std)
        predicted = self._of_codes(codes[test])
        apart, of_mean = abs(predicted - values[test]), abs(self._mean - values[test])
        self.quality: dict[str, dict[str, float]] = {
            name: {
                "students": len(test),
                "mean_absolute_error": float(apart[:, i].mean()),
                "of_the_mean": float(of_mean[:, i].mean()),
                "kendall_tau": float(kendalltau(predicted[:, i], values[test, i]).statistic),
            }
            for i, name in enumerate(TARGETS)
        }

    def __call__(self, architectures: list[Architecture]) -> np.ndarray:
        """(n, 2) predicted TARGETS."""
        return self._of_codes(np.array([self._space.encoded(a) for a in architectures]))

    def _of_codes(self, codes: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = self._model.predict(codes)
        return scaled * self._std + self._mean


@dataclass(frozen=True)
class Genes:
    """An architecture as integers, one a place: which of the values of its dimension."""

    space: Space

    @property
    def highest(self) -> np.ndarray:
        """The largest integer at each place."""
        space = self.space
        return np.array(
            [len(v) - 1 for name, v in space.choices.items() for _ in range(space.places[name])]
        )

    def architecture(self, genes: np.ndarray) -> Architecture:
        """What the integers stand for."""
        found: Architecture = {}
        rest = [int(gene) for gene in genes]
        for name, values in self.space.choices.items():
            count = self.space.places[name]
            found[name], rest = [values[gene] for gene in rest[:count]], rest[count:]
        return found


def require_pymoo() -> None:
    """Raise ProgipError where pymoo is not installed."""
    if importlib.util.find_spec("pymoo") is None:
        raise ProgipError("the search is pymoo's; install it with: pip install 'progip[search]'")


def pareto(
    space: Space, worth: Any, cost: Cost, options: Search, seed: int = 0
) -> list[tuple[Architecture, np.ndarray]]:
    """Students that no other is predicted to beat in both targets, within the cost limits.

    NSGA-II (Deb et al., IEEE TEVC 2002) of pymoo, on integers.

    Args:
        worth: architectures to (n, 2), larger is better.

    Returns:
        Architectures with their predicted worth, by falling second target.

    Raises:
        ProgipError: pymoo is not installed, or no student is cheap enough.
    """
    require_pymoo()
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    genes = Genes(space)
    limits = [(i, m) for i, m in enumerate((options.macs, options.parameters)) if m is not None]
    cheapest = cost(space.smallest())
    for index, limit in limits:
        if cheapest[index] > limit:
            what = ("macs", "parameters")[index]
            raise ProgipError(
                f"students.search.{what}={limit:g}: the smallest student has {cheapest[index]:,}"
            )

    class Students(Problem):
        def __init__(self) -> None:
            highest = genes.highest
            super().__init__(
                n_var=len(highest), n_obj=2, n_ieq_constr=len(limits), xl=0 * highest, xu=highest,
                vtype=int,
            )  # fmt: skip

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            architectures = [genes.architecture(row) for row in x]
            out["F"] = -worth(architectures)
            if limits:
                costs = np.array([cost(a) for a in architectures], dtype=float)
                out["G"] = np.stack([costs[:, i] / limit - 1 for i, limit in limits], 1)

    whole = {"vtype": float, "repair": RoundingRepair()}
    algorithm = NSGA2(
        pop_size=options.population,
        sampling=IntegerRandomSampling(),
        crossover=SBX(**whole),
        mutation=PM(**whole),
        eliminate_duplicates=True,
    )
    result = minimize(Students(), algorithm, ("n_gen", options.generations), seed=seed)
    if result.X is None:
        raise ProgipError(
            "no student within students.search.macs and .parameters was found; raise them, or "
            "students.search.population and .generations"
        )
    found: dict[tuple[float, ...], tuple[Architecture, np.ndarray]] = {}
    for row, value in zip(np.atleast_2d(result.X), np.atleast_2d(result.F), strict=True):
        architecture = genes.architecture(row)
        found.setdefault(tuple(space.encoded(architecture)), (architecture, -value))
    return sorted(found.values(), key=lambda one: -one[1][1])

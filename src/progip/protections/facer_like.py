"""FACER-like: a small network that tells faults by traces of layers. Our reading of FACER."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from progip.errors import ProgipError
from progip.protections.base import Evidence, Judgement, first_alarm
from progip.protections.supervised import CLEAN, OOD, Supervised
from progip.protections.trace_network import TraceNetwork
from progip.records import POPULATIONS
from progip.storage.whole_files import Checkpoint

COLUMN = "layer_traces"


@dataclass(kw_only=True)
class FacerLike(Supervised):
    """A supervised anomaly detector on traces of layers, after FACER (Schorn, Gauerhof, ITSC 2020).

    No text of the source was at hand; that it treats faults and OOD inputs alike as anomalies, and
    learns from examples of both, is said of it in the ProGIP publication. All else is a reading
    made here, along its predecessor (Schorn, Guntoro, Ascheid, SAFECOMP 2018): the mean over space
    of every channel of some layers in the first forward pass (probe ``layer_traces``) is
    standardised by fault-free ID training images, clipped to +-10, and given to a network with one
    hidden layer. A trace that is not finite counts as 10, sets one more input, and always raises
    the alarm. Any other alarm is raised where the log-odds of an anomaly exceed a quantile of
    clean calibration images. It sees no fault of the backward or the second forward pass.

    Attributes:
        classes: 2, clean and anomalous (faults, and OOD images where ``ood`` gives any); or 3,
            clean, OOD and fault, of which the last alone raises the alarm; it needs ``ood``.
        hidden: units of the hidden layer.
        epochs, batch_size, learning_rate: of Adam; every class is drawn alike.
        false_alarms: share of clean calibration images beyond the threshold.
        calibrate_on: ``id``, or ``all``: ID and OOD calibration images.
    """

    sentence: ClassVar[str] = (
        "A FACER-like protection, our reading of FACER, raises an alarm where a small network, "
        "trained on faults of other layers and bits in training images, takes the channel means of "
        "some layers for those of a fault [FACER, Schorn 2018]."
    )
    references: ClassVar[Mapping[str, str]] = {
        "FACER": "Schorn, Gauerhof: FACER: a universal framework for detecting anomalous operation "
        "of deep neural networks. IEEE ITSC 2020.",
        "Schorn 2018": "Schorn, Guntoro, Ascheid: Efficient on-line error detection and mitigation "
        "for deep neural network accelerators. SAFECOMP 2018.",
    }
    watches: ClassVar[tuple[str, ...]] = (COLUMN,)
    measures: ClassVar[tuple[pa.Field, ...]] = (pa.field("anomaly", pa.float32()),)

    classes: int = 2
    hidden: int = 128
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 1e-3
    false_alarms: float = 0.01
    calibrate_on: str = "id"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._must("classes", self.classes in (2, 3), "must be 2 or 3")
        self._must(
            "classes",
            self.classes == 2 or self.ood_set is not None,
            "needs an OOD set to learn from; give one with dataset@protection.ood=NAME",
        )
        for key in ("hidden", "epochs", "batch_size"):
            self._must(key, getattr(self, key) >= 1, "must be at least 1")
        self._must("learning_rate", self.learning_rate > 0, "must be above 0")
        self._must("false_alarms", 0 <= self.false_alarms < 1, "must be from 0 to below 1")
        self._must("calibrate_on", self.calibrate_on in ("id", "all"), "is not one of id, all")
        self._network: TraceNetwork | None = None

    @property
    def calibrated_on(self) -> tuple[str, ...]:
        return ("id",) if self.calibrate_on == "id" else POPULATIONS

    def learn(
        self, runs: Evidence, labels: np.ndarray, hit: np.ndarray, checkpoint: Checkpoint
    ) -> None:
        merged = labels if self.classes == 3 else np.minimum(labels, OOD)
        self._network = TraceNetwork.trained(
            self.name,
            runs[COLUMN],
            merged,
            clean=(labels == CLEAN) & ~hit,
            classes=self.classes,
            hidden=self.hidden,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            checkpoint=checkpoint,
        )

    def state(self) -> dict[str, Tensor]:
        return {} if self._network is None else self._network.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._network = TraceNetwork(dict(state))

    def anomaly(self, traces: np.ndarray) -> np.ndarray:
        """Log-odds (n,) float32 that traces (n, D) are anomalous; infinite where one is not finite.

        Raises:
            ProgipError: nothing was learnt yet, or it was learnt of other layers.
        """
        if self._network is None:
            raise ProgipError(
                f"protection '{self.name}' has learnt nothing yet; a campaign trains it, and "
                "load_state takes what one has learnt"
            )
        if traces.shape[1:] != (self._network.width,):
            raise ProgipError(
                f"protection '{self.name}' was trained on {self._network.width} traces and is "
                f"given {traces.shape[1]}; the probe must look at the same layers"
            )
        found = self._network.log_odds(torch.tensor(traces))
        return np.where(np.isfinite(traces).all(1), found.numpy(), np.float32(np.inf))

    def calibrate(self, clean: Evidence, *, gradient_vanishes: bool) -> dict[str, float]:
        found = self.anomaly(clean[COLUMN])
        if not np.isfinite(found).all():
            raise ProgipError(
                f"protection '{self.name}': a trace of a clean calibration image is not finite; "
                "the weights or the normalisation do not fit"
            )
        return {"anomaly": float(np.quantile(found.astype(np.float64), 1 - self.false_alarms))}

    def judge(self, evidence: Evidence, thresholds: Mapping[str, float]) -> Judgement:
        anomaly = self.anomaly(evidence[COLUMN])
        finite = np.isfinite(anomaly)
        beyond = finite & ~(anomaly <= thresholds["anomaly"])
        return first_alarm([("nonfinite", ~finite), ("anomaly", beyond)])

    def measured(self, evidence: Evidence) -> dict[str, np.ndarray]:
        return {"anomaly": self.anomaly(evidence[COLUMN])}

    def suspicion(
        self, evidence: Evidence, clean: Evidence, thresholds: Mapping[str, float]
    ) -> np.ndarray:
        """The log-odds that its rows have kept, or those of the traces."""
        if "anomaly" in evidence:
            return evidence["anomaly"].astype(np.float64)
        return self.anomaly(evidence[COLUMN]).astype(np.float64)

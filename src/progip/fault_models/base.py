"""What a fault model is: it draws the plan of a cell, before anything is executed."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from progip import records
from progip.batch_axis import IMAGES_FIRST, BatchAxis
from progip.described import Described
from progip.errors import ProgipError
from progip.number_formats.base import NumberFormat
from progip.number_formats.fp32 import FP32


@dataclass(frozen=True)
class Site:
    """A tensor that a pass computes, or a parameter, which a fault can hit.

    Attributes:
        layer: name in ``named_modules()``.
        call: which call of that module in the pass (0 unless the module is reused); of a parameter
            its position among the parameters of the module.
        kind: class name of the module.
        shape: of one sample's tensor: the module's output in a forward pass, its input (whose
            gradient is the module's ``grad_input``) in the backward pass; of a parameter its own.
        neurons: elements of that tensor.
        macs: multiply-accumulates of the module's forward for one sample; 0 where not counted.
        kinds: ``kind`` and the classes it derives from; a site is chosen by any of them.
        axis: where the samples of a batch lie in the tensor.
        doubt: why they cannot be told apart; such a site cannot be hit. "" where they can.
        fresh: whether the output of a forward pass is memory that nothing else has a view of.
        format: of the tensor's values, whose codes faults flip bits of.
        parameter: name of the parameter in its module; "" for a tensor that a pass computes.
        of_metadata: whether a fault hits a register that values of the tensor share, in place of a
            value: neurons are then its blocks, bits those of a register.
    """

    layer: str
    call: int
    kind: str
    shape: tuple[int, ...]
    neurons: int
    macs: int
    kinds: tuple[str, ...] = ()
    axis: BatchAxis = IMAGES_FIRST
    doubt: str = ""
    fresh: bool = False
    format: NumberFormat = field(default_factory=lambda: FP32, hash=False)
    parameter: str = ""
    of_metadata: bool = False

    @property
    def bits(self) -> int:
        """Of what a fault hits."""
        return self.format.metadata_bits if self.of_metadata else self.format.bits

    def field(self, bit: int) -> str:
        """What a bit means: a field of the number format, or ``metadata``; "" for no bit."""
        if self.of_metadata:
            return "metadata"
        return next((f.name for f in self.format.fields if f.low <= bit <= f.high), "")

    @property
    def key(self) -> tuple[str, int]:
        return self.layer, self.call


@dataclass(frozen=True)
class Atoms:
    """Every (site, bit) a single fault can hit, with its probability: what strata are made of.

    Attributes:
        sites: what ``FaultModel.select`` returned.
        site: (A,) position in ``sites``.
        bit: (A,) int8, as in ``records.PLAN``.
        probability: (A,) of the fault model's own law; positive, sums to 1.
    """

    sites: list[Site]
    site: np.ndarray
    bit: np.ndarray
    probability: np.ndarray


class Hits(NamedTuple):
    """What planned faults do to values, one element a hit value, all of shape (hits,).

    No value of a run is named twice.

    Attributes:
        row: int64; position of the run in the plan, ascending.
        site: int64; position in the sites that ``FaultModel.select`` returned.
        neuron: int64; flat index into one sample's tensor, channels first.
        mask: uint32; the bits to flip, 0 for a fault that flips nothing.
        clear: uint32; the bits to clear before that: all of them for a value that is replaced by
            the one whose code is ``mask``. None: no bit of any.
    """

    row: np.ndarray
    site: np.ndarray
    neuron: np.ndarray
    mask: np.ndarray
    clear: np.ndarray | None = None


#: of a run whose faults hit any number of neurons; ``layer`` is "", ``neuron`` and ``bit`` are -1
#: there, and the hits themselves follow from seed, cell and run_id (``FaultModel.hits``).
MANY = (
    pa.field("hits", pa.int32()),
    pa.field("fault_digest", pa.int64()),  # hash of sites, neurons and bits; 0 without a hit
)

#: of a fault that stays in memory: the set of faults that a round of images shares, and what of the
#: module is hit; "" where a set hits several parameters
MAP = (pa.field("map_id", pa.int32()), pa.field("parameter", pa.string()))

#: whether every path through the network goes through the layer that is hit
SUPER = (pa.field("super_layer", pa.bool_()),)

BITS = 32  # of the longest code
NO_BIT = -1
NO_NEURON = -1


@dataclass(kw_only=True)
class FaultModel(Described, ABC):
    """One fault model; the dataclass fields of a subclass are the options of its YAML file.

    Class attributes:
        many: whether a run has any number of hits, drawn by ``hits`` and not named in the plan.
        scope: ``row``: every run has faults of its own; ``round``: a set of faults (a fault map)
            stays in memory for a whole round of images. Its plans are of maps, not of runs.
    """

    name: str

    many: ClassVar[bool] = False
    scope: ClassVar[str] = "row"

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """What rows have beyond the plan: what a run with many hits keeps of them."""
        return MANY if self.many else ()

    @property
    def target(self) -> str | None:
        """What result rows call the tensors it hits; None: what the pass says."""
        return None

    def maps(self) -> int | None:
        """Fault maps of a cell where the fault model says how many; None: the cell's own number."""
        return None

    def rows_per_map(self, images: int) -> int:
        """Runs that share a fault map, of so many images; 1 where every run has its own."""
        return 1

    def check_format(self, number_format: NumberFormat) -> None:
        """Refuse options that name bits a format does not have. Raises ProgipError."""

    @abstractmethod
    def select(self, sites: list[Site]) -> list[Site]:
        """The sites this fault model can hit. Raises ProgipError where none is left."""

    @abstractmethod
    def plan(
        self, sites: list[Site], images: int, seed: int, key: str, start: int, stop: int
    ) -> pa.Table:
        """The planned faults of runs start..stop-1, schema ``records.PLAN``.

        Row i depends on (seed, key, i) and on this fault model's options alone.

        Args:
            sites: what ``select`` returned.
            images: size of the population's evaluation split.
            key: names the cell.
        """

    def hits(self, sites: list[Site], plan: pa.Table, seed: int, key: str) -> Hits:
        """What the planned runs do to values: by default the one bit that each row names.

        Args:
            sites, seed, key: those that ``plan`` was called with.
            plan: rows of ``records.PLAN``, any of them in any order.
        """
        return named_hits(sites, plan)

    def atoms(self, sites: list[Site]) -> Atoms:
        """Every (site, bit) with its probability under ``plan``; neuron and image are uniform.

        Raises:
            ProgipError: a fault of this model is not one bit of one neuron.
        """
        raise ProgipError(
            f"fault_model '{self.name}': its faults are not one bit of one neuron, so they have no "
            "strata; use sampling=uniform"
        )


def unnamed(runs: np.ndarray, images: np.ndarray) -> pa.Table:
    """``records.PLAN`` of runs whose hits it does not name; ``FaultModel.hits`` draws them.

    Args:
        runs: (n,) int64, numbers of the runs.
        images: (n,) that they hit.
    """
    count = len(runs)
    same = np.zeros(count, dtype=np.int64)
    return pa.table(
        {
            "run_id": runs,
            "sample_index": images.astype(np.int32),
            "layer": np.full(count, "", dtype=object),
            "call": same.astype(np.int16),
            "neuron": same + NO_NEURON,
            "bit": (same + NO_BIT).astype(np.int8),
            "weight": np.ones(count),
            "stratum": same.astype(np.int32),
        },
        schema=records.PLAN,
    )


def named_hits(sites: list[Site], plan: pa.Table) -> Hits:
    """The hits that the columns layer, call, neuron and bit of a plan name, one per row.

    Raises:
        KeyError: a row names a layer that is not among the sites.
    """
    position = {site.key: i for i, site in enumerate(sites)}
    keys = zip(plan["layer"].to_pylist(), plan["call"].to_pylist(), strict=True)
    bit = plan["bit"].to_numpy()
    mask = np.where(bit == NO_BIT, 0, np.uint32(1) << np.maximum(bit, 0).astype(np.uint32))
    return Hits(
        np.arange(len(plan)),
        np.array([position[key] for key in keys], dtype=np.int64),
        plan["neuron"].to_numpy(),
        mask.astype(np.uint32),
    )


def digests(hits: Hits, rows: int) -> np.ndarray:
    """(rows,) int64: a hash of the hits of each row of a plan; 0 where there is none.

    What a row keeps of its hits where it cannot name them all: a replay must draw the same.
    """
    parts = [hits.site, hits.neuron, hits.mask.astype(np.int64)]
    if hits.clear is not None:
        parts.append(hits.clear.astype(np.int64))
    content = np.stack(parts, 1)
    ends = np.searchsorted(hits.row, np.arange(rows + 1))
    result = np.zeros(rows, dtype=np.int64)
    for row in np.flatnonzero(np.diff(ends)):
        part = content[ends[row] : ends[row + 1]].tobytes()
        digest = hashlib.blake2b(part, digest_size=8).digest()
        result[row] = np.frombuffer(digest, dtype=np.int64)[0]
    return result

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
    """A tensor that a pass computes and a fault can hit.

    Attributes:
        layer: name in ``named_modules()``.
        call: which call of that module in the pass (0 unless the module is reused).
        kind: class name of the module.
        shape: of one sample's tensor: the module's output in a forward pass, its input (whose
            gradient is the module's ``grad_input``) in the backward pass.
        neurons: elements of that tensor.
        macs: multiply-accumulates of the module's forward for one sample; 0 where not counted.
        kinds: ``kind`` and the classes it derives from; a site is chosen by any of them.
        axis: where the samples of a batch lie in the tensor.
        doubt: why they cannot be told apart; such a site cannot be hit. "" where they can.
        fresh: whether the output of a forward pass is memory that nothing else has a view of.
        format: of the tensor's values, whose codes faults flip bits of.
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
    """

    name: str

    many: ClassVar[bool] = False

    @property
    def columns(self) -> tuple[pa.Field, ...]:
        """What rows have beyond the plan: what a run with many hits keeps of them."""
        return MANY if self.many else ()

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


def check_bits(owner: str, bits: list[int], number_format: NumberFormat | None = None) -> None:
    """Raise ProgipError unless ``bits`` are distinct bits, at least one, of the format if given."""
    if not bits or len(set(bits)) != len(bits):
        raise ProgipError(f"fault_model '{owner}': bits must be distinct and at least one")
    most = 31 if number_format is None else number_format.bits - 1
    if any(not 0 <= bit <= most for bit in bits):
        which = "" if number_format is None else f" of number_format '{number_format.name}'"
        raise ProgipError(
            f"fault_model '{owner}': bits must lie in 0..{most}{which}, got {list(bits)}"
        )


def check_count(owner: str, key: str, count: int, number_format: NumberFormat) -> None:
    """Raise ProgipError unless a code of the format has so many bits."""
    if count > number_format.bits:
        raise ProgipError(
            f"fault_model '{owner}': {key}={count} bits, and a code of number_format "
            f"'{number_format.name}' has {number_format.bits}"
        )

"""The strata of a space: which faults are alike, how likely they are, how one is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from progip.errors import ProgipError
from progip.fault_models.random import integers
from progip.number_formats.fp32 import FP32
from progip.sampling.base import CleanValues, FaultSpace
from progip.sampling.change import CLASSES, EDGES, change_class, class_names

FACTORS = ("bit", "layer", "change", "correct", "margin")
#: factors of the image; a plan has one of them
OF_IMAGE = ("correct", "margin")
#: classes of the originally correct images by their distance from the OOD threshold, nearest first
MARGINS = (0.02, 0.05, 0.1, 0.2, 0.5)
#: of each class of changes: all that are small beside the site's values are one
WIDER_CHANGES = np.maximum(np.arange(CLASSES) - EDGES.index(0), 0)


@dataclass(frozen=True)
class Strata:
    """The strata of one space, and the faults in them.

    A fault lies in an entry: a site and bit, a code of fault-free values (where ``change`` is a
    factor), a class of images. A stratum is one or more entries.

    Attributes:
        levels: (factors, H) level of each stratum in each factor, in the order of ``by``.
        wider: (factors, H) the same, of wider levels: the field of a bit.
        names: (H,) such as ``change=2^3 margin=0-2 % layer=fc#0``.
        shares: (H,) probability under the fault model; above 0.
        even: (H,) part of the runs in a plan that visits changes and margins alike, and no image
            that cannot fail.
    """

    levels: NDArray[np.int64]
    wider: NDArray[np.int64]
    names: list[str]
    shares: NDArray[np.float64]
    even: NDArray[np.float64]
    _first: NDArray[np.int64]  # entries of each stratum, (H + 1,)
    _entry: NDArray[np.int64]  # (3, entries): atom, site and code in one, class of images
    _chance: NDArray[np.float64]  # cumulated probability of the entries, (entries + 1,)
    _images: NDArray[np.int64]  # images, ordered by class
    _edges: NDArray[np.int64]  # of the classes in that order
    _below: NDArray[np.int64]  # cumulated values by site, code and ordered image
    _values: CleanValues | None

    def draw(
        self, stratum: NDArray[np.int64], uniform: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """A fault in each stratum by the fault model's law: atom, image, neuron; all (rows,).

        Args:
            stratum: (rows,).
            uniform: (rows, 2) numbers in [0, 1).
        """
        first, last = self._first[stratum], self._first[stratum + 1] - 1
        low, high = self._chance[first], self._chance[last + 1]
        place = np.searchsorted(self._chance, low + uniform[:, 1] * (high - low), side="right") - 1
        atom, block, group = self._entry[:, np.clip(place, first, last)]
        count = len(self._images)
        low, high = (self._below[block * count + self._edges[group + end]] for end in (0, 1))
        value = low + integers(uniform[:, 0], high - low)
        place = np.searchsorted(self._below, value, side="right") - 1
        image, rank = self._images[place % count], value - self._below[place]
        if self._values is None:
            return atom, image, rank
        site, code = np.divmod(block, self._values.counts.shape[1])
        return atom, image, self._values.neurons(image, site, code, rank)


def strata_of(space: FaultSpace, by: list[str]) -> Strata:
    """The strata of a space: all combinations of the factors that hold a fault.

    Raises:
        ProgipError: a layer has no site, or ``by`` names a factor this space knows too little
            for.
    """
    atoms, values = space.atoms, None
    counts = np.broadcast_to(
        space.neurons[:, None, None], (len(atoms.sites), 1, len(space.correct))
    )
    if "change" in by:
        if space.find_values is None:
            raise ProgipError("sampling.by: the fault-free values are not known, leave out change")
        other = next((s.format for s in atoms.sites if s.format.name != FP32.name), None)
        if other is not None:
            raise ProgipError(
                f"sampling.by: change is known of number_format '{FP32.name}' alone, not of "
                f"'{other.name}'; leave out change"
            )
        values = space.find_values()
        counts = values.counts
    fields = [
        part.low for part in atoms.sites[0].format.fields[1:]
    ]  # first bit of each after the first
    classes, labels, wide = _image_classes(space, by)
    images = np.concatenate(classes)
    edges = np.cumsum([0, *(len(chosen) for chosen in classes)])
    below = np.append(0, np.cumsum(counts[:, :, images], dtype=np.int64))
    sites, codes, total = counts.shape
    starts = np.arange(sites * codes)[:, None] * total + edges
    held = np.diff(below[starts], axis=1).reshape(sites, codes, len(classes))
    possible = space.neurons * total
    empty = np.flatnonzero(possible == 0)
    if len(empty):
        site = atoms.sites[empty[0]]
        raise ProgipError(f"sampling: layer={site.layer}#{site.call} is a stratum without sites")
    part = held / possible[:, None, None]
    probability = atoms.probability[:, None, None] * part[atoms.site]
    atom, code, group = np.nonzero(probability)
    levels, names, wider = [], [], []
    for factor in by:
        if factor == "bit":
            bits = np.unique(atoms.bit)
            found = np.searchsorted(bits, atoms.bit)[atom], np.digitize(bits, fields)
            name = [f"bit={b}" for b in bits]
        elif factor == "layer":
            found = atoms.site[atom], np.zeros(sites, dtype=np.int64)
            name = [f"layer={s.layer}#{s.call}" for s in atoms.sites]
        elif factor == "change" and values is not None:
            site = atoms.site[atom]
            found = change_class(atoms.bit[atom], code, values.scale[site]), WIDER_CHANGES
            name = class_names()
        else:
            found, name = (group, wide), labels
        levels.append(found[0])
        wider.append(found[1])
        names.append(name)
    sizes = [len(name) for name in names]
    whole = np.ravel_multi_index(levels, sizes)
    kept, stratum = np.unique(whole, return_inverse=True)
    order = np.argsort(stratum, kind="stable")
    chance = probability[atom, code, group]
    shares = np.bincount(stratum, chance)
    grid = np.stack(np.unravel_index(kept, sizes))
    even = shares.copy()
    for factor, level, name in zip(by, grid, names, strict=True):
        if factor in ("change", "margin"):
            even = even / np.bincount(level, shares, minlength=len(name))[level]
        if factor in OF_IMAGE:
            even[np.array([label == "wrong" for label in name])[level]] = 0
    return Strata(
        levels=grid,
        wider=np.stack([w[level] for w, level in zip(wider, grid, strict=True)]),
        names=[
            " ".join(name[i] for name, i in zip(names, column, strict=True)) for column in grid.T
        ],
        shares=shares / shares.sum(),
        even=even / even.sum() if even.any() else shares / shares.sum(),
        _first=np.searchsorted(stratum[order], np.arange(len(kept) + 1)),
        _entry=np.stack([atom, atoms.site[atom] * codes + code, group])[:, order],
        _chance=np.append(0.0, np.cumsum(chance[order])),
        _images=images,
        _edges=edges,
        _below=below,
        _values=values,
    )


def _image_classes(
    space: FaultSpace, by: list[str]
) -> tuple[list[NDArray[np.int64]], list[str], NDArray[np.int64]]:
    """Classes of images, none empty, with their names and whether each can fail."""
    right, wrong = (np.flatnonzero(space.correct == flag) for flag in (True, False))
    if not set(by) & set(OF_IMAGE):
        return [np.arange(len(space.correct))], ["all images"], np.zeros(1, dtype=np.int64)
    found = [("correct", right)]
    if "margin" in by:
        if space.distance is None:
            raise ProgipError("sampling.by: the fault-free scores are not known, leave out margin")
        near = right[np.argsort(space.distance[right], kind="stable")]
        parts = np.split(near, [round(share * len(near)) for share in MARGINS])
        ends = [f"{100 * share:g}" for share in (*MARGINS, 1)]
        names = [f"margin={low}-{high} %" for low, high in zip(["0", *ends], ends, strict=False)]
        found = list(zip(names, parts, strict=True))
    found = [(name, chosen) for name, chosen in [*found, ("wrong", wrong)] if len(chosen)]
    labels = [name for name, _ in found]
    return [chosen for _, chosen in found], labels, np.array([n == "wrong" for n in labels]) * 1

"""Frames for the runs of several nodes, and smaller ones where less differs."""

import numpy as np

from progip.engine.incremental.frames import (
    Crop,
    Frame,
    arranged,
    boxes,
    cut,
    packed,
    paste,
    pixels,
    unequal,
)

GAIN = 0.75  # windows are cut anew where that leaves at most this share of their pixels


def lined_up(
    of_inputs: list[list[Crop]], count: int, shape: tuple[int, int] | None
) -> list[tuple[Frame, np.ndarray]]:
    """Frames that hold the windows of every dirty run in all inputs.

    Args:
        of_inputs: the windows of each input.
        count: number of runs.
        shape: height and width of the inputs; None where there is only one.
    """
    crops = [crop for of_input in of_inputs for crop in of_input]
    if shape is None:
        return [(crop.frame, crop.alive) for crop in crops]
    top, left = np.full(count, 1 << 30), np.full(count, 1 << 30)
    bottom, right = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for crop in crops:
        frame, alive = crop.frame, crop.alive
        runs, y, x = frame.runs[alive], frame.y[alive], frame.x[alive]
        top[runs], left[runs] = np.minimum(top[runs], y), np.minimum(left[runs], x)
        bottom[runs] = np.maximum(bottom[runs], y + frame.h)
        right[runs] = np.maximum(right[runs], x + frame.w)
    taken = np.zeros(count, dtype=bool)
    result = []
    for crop in sorted(crops, key=lambda c: -c.frame.h * c.frame.w):
        frame, alive, runs = crop.frame, crop.alive, crop.frame.runs
        fits = alive & ~taken[runs]
        fits &= (frame.y <= top[runs]) & (frame.x <= left[runs])
        fits &= (frame.y + frame.h >= bottom[runs]) & (frame.x + frame.w >= right[runs])
        if 2 * fits.sum() > frame.count:
            result.append((frame, fits))
            taken[runs[fits]] = True
    rest = np.flatnonzero((bottom > 0) & ~taken)
    if len(rest):
        box = (top[rest], left[rest], bottom[rest], right[rest])
        for frame, _ in arranged(rest, box, shape):
            result.append((frame, np.arange(frame.lanes) < frame.count))
    return result


def shrunk(
    crops: list[Crop], golden: np.ndarray, rows: np.ndarray, shape: tuple[int, int]
) -> list[Crop]:
    """Only the runs that differ from golden, in smaller windows where that pays."""
    found, before = [], 0
    for crop in crops:
        frame = crop.frame
        values = cut(golden, rows[frame.runs], frame.place, shape, 0)
        where = unequal(crop.value, values)
        differing = where.any((1, 2))
        top, left, bottom, right = boxes(where)
        crop.alive = crop.alive & differing
        found.append((top, left, bottom, right))
        before += frame.lanes * frame.h * frame.w
    found = [box for crop, box in zip(crops, found, strict=True) if crop.alive.any()]
    crops = [crop for crop in crops if crop.alive.any()]
    if not crops:
        return []
    members = [crop.alive.nonzero()[0] for crop in crops]
    runs = np.concatenate([c.frame.runs[m] for c, m in zip(crops, members, strict=True)])
    y = np.concatenate([c.frame.y[m] for c, m in zip(crops, members, strict=True)])
    x = np.concatenate([c.frame.x[m] for c, m in zip(crops, members, strict=True)])
    top, left, bottom, right = (
        np.concatenate([b[k][m] for b, m in zip(found, members, strict=True)]) for k in range(4)
    )
    needed = -np.sort(-np.maximum(bottom - top, right - left))
    after = sum(
        lanes * min(side, shape[0]) * min(side, shape[1]) for _, _, lanes, side in packed(needed)
    )
    if after > GAIN * before:
        return crops
    owner = np.repeat(np.arange(len(crops)), [len(m) for m in members])
    lane = np.concatenate(members)
    result = []
    for frame, chosen in arranged(runs, (y + top, x + left, y + bottom, x + right), shape):
        value = cut(golden, rows[frame.runs], frame.place, shape, 0)
        for k in np.unique(owner[chosen]):
            into = (owner[chosen] == k).nonzero()[0]
            source = lane[chosen[into]]
            crop = crops[k]
            corner = (
                crop.frame.y[source] - frame.y[into],
                crop.frame.x[source] - frame.x[into],
            )
            paste(pixels(value), (frame.h, frame.w), into, corner, crop.value, source)
        alive = np.arange(frame.lanes) < frame.count
        result.append(Crop(frame, value, alive, alive))
    return result

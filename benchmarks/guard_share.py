"""ProGIP's checks as a share of the detector's time, for a machine too busy for whole calls.

    python benchmarks/guard_share.py [--campaign sample_resnet20] [--seconds 20] [overrides]

Whole calls differ by more than ProGIP costs when others use the processor. Here a pair is two
detections, one answered without a protection, one with ProGIP, in random order; the mean processor
time of the two detections counts for both, so that only what comes after them differs. What the
checks do to the detection itself (caches) is not seen.

Prints one line of a Markdown table: median ratio with its bootstrap interval, and microseconds.
"""

import argparse
import os
import time

from progip.campaign.subject import prepare
from progip.config import cell_settings, composed
from progip.deploy.calibration import guarded_subject
from progip.protections.none import NoProtection
from progip.protections.progip import ProGIP
from progip.statistics import median_ratio

# isort: split
import numpy as np
import torch


def main() -> None:
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    top.add_argument("overrides", nargs="*")
    top.add_argument("--campaign")
    top.add_argument("--batch", type=int, default=1)
    top.add_argument("--seconds", type=float, default=20)
    options = top.parse_args()
    torch.set_num_threads(1)
    subject = prepare(cell_settings(composed(options.overrides, campaign=options.campaign)).subject)
    plain = guarded_subject(subject, NoProtection(name="none"))
    guarded = guarded_subject(subject, ProGIP(name="progip"))
    images = subject.tested.images["id"][: options.batch]
    random, clock = np.random.default_rng(0), time.thread_time
    pairs, begun = [], time.monotonic()
    while time.monotonic() - begun < options.seconds or len(pairs) < 50:
        common, spent = 0.0, {}
        for detector in random.permutation(np.array([plain, guarded], dtype=object)):
            start = clock()
            detection = subject.tested.method.detect(subject.tested.network, images)
            common += (clock() - start) / 2
            start = clock()
            detector.answer(detection)
            spent[detector] = clock() - start
        pairs.append((common + spent[plain], common + spent[guarded]))
    found, seconds = median_ratio(pairs[10:]), np.median(np.array(pairs), 0)
    print(
        f"| {subject.tested.identity['model']['name']} | {subject.tested.method.name} "
        f"| {options.batch} "
        f"| {1e3 * seconds[0]:.3g} | {100 * found.estimate:.2f} "
        f"| {100 * found.low:.2f}–{100 * found.high:.2f} "
        f"| {1e6 * float(np.median(np.diff(np.array(pairs), axis=1))):.0f} | {found.n} "
        f"| {os.getloadavg()[0]:.1f} |"
    )


if __name__ == "__main__":
    main()

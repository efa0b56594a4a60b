"""What bounded activations cost without faults: time of a clean evaluation, memory of the bounds.

    OMP_NUM_THREADS=1 python benchmarks/bounded.py --networks resnet20 densenet --weights DIR \
        --images FILE --threads 1 --batch 64 --channels-last

Every variant evaluates the same images in the same batches, all in turn, in processor time. Bounds
are the largest clean outputs, so nothing is replaced: what is timed is looking for it.
"""

import argparse
import statistics

from common import NETWORKS, clean_evaluation, formats, interleaved, load_images, parser

# isort: split
import torch
from tabulate import tabulate

from progip.protections.bounded.base import bound_parameters
from progip.protections.bounded.ranger_bound import RangerBound
from progip.protections.correcting import Correcting
from progip.protections.gradient_statistics import GradientStatistics
from progip.protections.range_restriction import RangeRestriction

VARIANTS: dict[str, Correcting] = {
    "ranger_bound, ft_clipact (zero, layer)": RangerBound(name="layer"),
    "clamp, layer": RangerBound(name="clamp", replacement="clamp"),
    "zero, neuron": RangerBound(name="neuron", granularity="neuron"),
    "fitact (soft_zero, neuron)": RangerBound(
        name="fitact", replacement="soft_zero", granularity="neuron"
    ),
    "proact (soft_zero, hybrid)": RangerBound(
        name="proact", replacement="soft_zero", granularity="hybrid"
    ),
    "ranger_zero": RangeRestriction(name="ranger_zero", action="zero"),
    "gradient_statistics": GradientStatistics(name="gradient_statistics"),
}


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0])
    arguments.add_argument("--count", type=int, default=512, help="images of an evaluation")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        measure(name, options)


@torch.no_grad()
def measure(name: str, options: argparse.Namespace) -> None:
    """Time every variant of one network."""
    mean, std = NETWORKS[name][2:]
    images = load_images(options.images, options.count, mean, std)
    network, _, trained = formats(name, options, images)
    if options.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    batches = [(part, torch.zeros(len(part))) for part in images.split(options.batch)]
    weights = sum(parameter.numel() for parameter in network.parameters())
    calls = {"unprotected": clean_evaluation(network, images, options.batch)}
    sizes = {"unprotected": 0}
    for label, protection in VARIANTS.items():
        state = protection.fit(network, batches)
        protected = protection.protect(network, state)
        calls[label] = clean_evaluation(protected, images, options.batch)
        found = bound_parameters(protected).values() or state.values()
        sizes[label] = sum(tensor.numel() for tensor in found)
    seconds = interleaved(calls, options)
    rows = []
    for label, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["unprotected"], strict=True)]
        share = 100 * sizes[label] / weights
        rows.append(
            [label, statistics.median(ratios), min(ratios), max(ratios), sizes[label], share]
        )
    print(f"\n{name} ({'trained' if trained else 'random'} weights), {len(images)} images")
    headers = ["", "time", "least", "most", "numbers kept", "% of the parameters"]
    print(tabulate(rows, headers, floatfmt=".3f"))


if __name__ == "__main__":
    main()

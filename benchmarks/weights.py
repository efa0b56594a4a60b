"""What faults that stay in memory cost: a round at a bit error rate, and single faults.

    OMP_NUM_THREADS=1 python benchmarks/weights.py --networks resnet20 --weights DIR --images FILE \
        --threads 1 --batch 64 --channels-last

A round is one fault map on all images, by the executor of a campaign: written, executed, taken back
and compared. It is timed against the clean evaluation (`network(x)` in the same batches), all in
turn, in processor time on one thread. Single faults: bits drawn uniformly over all weights, by the
incremental and by the reference executor.
"""

import argparse
import statistics

from common import NETWORKS, clean_evaluation, formats, interleaved, load_images, parser

# isort: split
import numpy as np
import pyarrow as pa
import torch
from tabulate import tabulate
from torch import Tensor, nn

from progip.engine.incremental import IncrementalRounds, Traced
from progip.engine.pipeline import Pipeline
from progip.engine.ranges import RangeTable
from progip.engine.rounds import RoundExecutor
from progip.fault_models.base import MAP
from progip.fault_models.bit_error_rate import BitErrorRate
from progip.fault_models.memory import InMemory
from progip.fault_models.parameter_bit import ParameterBit
from progip.fault_models.parameters import parameter_sites
from progip.ood_methods.none import NoMethod

RATES = (0.0, 1e-6, 1e-4)
FAULTS = 16  # single ones in a call


def main() -> None:
    arguments = parser(str(__doc__).splitlines()[0])
    arguments.add_argument("--count", type=int, default=512, help="images of a round")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.networks:
        measure(name, options)


def measure(name: str, options: argparse.Namespace) -> None:
    """Time every variant of one network."""
    mean, std = NETWORKS[name][2:]
    images = load_images(options.images, options.count, mean, std)
    network, _, trained = formats(name, options, images)
    if options.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    pipeline = Pipeline(network, NoMethod(name="none"), RangeTable())
    traced = Traced(pipeline, images[: options.batch])

    variants = {"clean evaluation": clean_evaluation(network, images, options.batch)}
    for rate in RATES:
        model = BitErrorRate(name="rate", rate=rate)
        variants[f"a round at {rate:g}"] = rounds(pipeline, model, images, options, 1)
    single = ParameterBit(name="bit")
    variants[f"{FAULTS} single faults, whole"] = rounds(pipeline, single, images, options, FAULTS)
    variants[f"{FAULTS} single faults, incremental"] = rounds(
        pipeline, single, images, options, FAULTS, traced
    )
    seconds = interleaved(variants, options)
    base = seconds["clean evaluation"]
    rows = []
    for variant, values in seconds.items():
        ratios = [a / b for a, b in zip(values, base, strict=True)]
        middle = statistics.median(ratios)
        rows.append([variant, statistics.median(values), middle, min(ratios), max(ratios)])
    print(f"\n{name} ({'trained' if trained else 'random'} weights), {len(images)} images")
    print(tabulate(rows, ["", "seconds", "over clean", "least", "most"], floatfmt=".3f"))


def rounds(
    pipeline: Pipeline,
    model: InMemory,
    images: Tensor,
    options: argparse.Namespace,
    maps: int,
    traced: Traced | None = None,
):
    """A call that executes so many maps on all images."""
    network: nn.Module = pipeline.network
    sites = model.select(parameter_sites(network, {}))
    plan = model.plan(sites, 1, 0, "bench", 0, maps)
    number = np.repeat(np.arange(maps), len(images))
    whole = plan.take(pa.array(number))
    columns = {
        "run_id": np.arange(len(number)),
        "sample_index": np.tile(np.arange(len(images)), maps),
    }
    for name, values in columns.items():
        place = whole.schema.get_field_index(name)
        field = whole.schema.field(name)
        whole = whole.set_column(place, field, pa.array(values, field.type))
    whole = whole.append_column(MAP[0], pa.array(number, "int32"))

    def draw(planned: pa.Table):
        return model.hits(sites, planned, 0, "bench")

    if traced is not None:
        fast = IncrementalRounds(traced, sites, images, draw)
        return lambda: fast.run(whole)
    slow = RoundExecutor(pipeline, sites, images, options.batch, draw, named=not model.many)
    return lambda: slow.run(whole)


if __name__ == "__main__":
    main()

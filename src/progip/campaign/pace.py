"""How many runs are executed at once, and how often what is executed is stored."""

BLOCK_SECONDS = 20.0  # of work at once, where golden values are cheap
GOLDEN_SHARE = 0.1  # more, if golden values take a larger share of the block than this,
LONGEST_BLOCK = 600.0  # up to this
MOST_RUNS = 200_000  # of a block; each takes about 1 KiB until it is written
KEEP_SECONDS = 30.0  # after which executed runs are kept on disk, whole shards or not


class Pace:
    """How many shards to execute at once, by the rates measured so far.

    The incremental executor computes golden values once per image and block, so it likes large
    blocks; a shard is whole, and its rows are seen, when its block ends. A block lasts about
    ``BLOCK_SECONDS``, and up to ``LONGEST_BLOCK`` where golden values would take more than
    ``GOLDEN_SHARE`` of it. The first one is one shard where no rate is known.

    Args:
        shard_size: runs in one shard.
        seconds_per_run: known from an earlier execution.
    """

    def __init__(self, shard_size: int, seconds_per_run: float | None = None) -> None:
        self.shard_size = shard_size
        self.rate = 1 / seconds_per_run if seconds_per_run else 0.0  # runs per second
        self.golden = 0.0  # seconds for the golden values of a block

    def shards(self) -> int:
        """Shards of the next block."""
        seconds = min(max(BLOCK_SECONDS, self.golden / GOLDEN_SHARE), LONGEST_BLOCK)
        runs = min(self.rate * seconds, MOST_RUNS)
        return max(1, int(runs / self.shard_size))

    def measured(self, runs: int, seconds: float, golden: float) -> None:
        """Learn from a block: its runs, its time, and what of that golden values took."""
        self.golden = golden
        self.rate = runs / max(seconds - golden, 1e-9)

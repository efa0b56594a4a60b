"""Mean and standard deviation of a stream, exact to rounding, however it is cut into batches."""

import math

import torch
from scipy import stats
from torch import Tensor

GRANULARITIES = ("neuron", "channel", "layer")


class RunningMoments:
    """Welford's running mean and sum of squares, in the batch form of Chan, Golub and LeVeque.

    n = n_a + n_b, d = mean_b - mean_a: mean = mean_a + d n_b / n,
    M2 = M2_a + M2_b + d^2 n_a n_b / n (Updating formulae and a pairwise algorithm for computing
    sample variances, 1979, eq. 2.1). All in float64.

    Args:
        granularity: what shares a mean: each ``neuron`` of a sample, a ``channel``, the ``layer``.
        axis: of the channels in a batch of values, negative.

    Attributes:
        count: n, values seen for each mean.
        mean, squares: (*shape of one sample), of size 1 where values share a mean; squares is M2,
            the sum of squared deviations.
        largest: largest absolute value, of the same shape.
    """

    def __init__(self, granularity: str, axis: int) -> None:
        self.granularity, self.axis = granularity, axis
        self.count = 0
        self.mean = self.squares = self.largest = torch.zeros((), dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Merge values (n, *shape of one sample), n >= 1."""
        values = values.double()
        shared = self._shared(values.dim())
        count = math.prod(values.shape[d] for d in shared)
        mean = values.mean(shared, keepdim=True)
        squares = (values - mean).square_().sum(shared, keepdim=True)[0]
        mean, largest = mean[0], values.abs_().amax(shared, keepdim=True)[0]
        if self.count == 0:
            self.count, self.mean, self.squares, self.largest = count, mean, squares, largest
            return
        total = self.count + count
        apart = mean - self.mean
        self.mean = self.mean + apart * (count / total)
        self.squares = self.squares + squares + apart.square() * (self.count * count / total)
        self.largest = torch.maximum(self.largest, largest)
        self.count = total

    def _shared(self, dimensions: int) -> tuple[int, ...]:
        if self.granularity == "neuron":
            return (0,)
        kept = dimensions + self.axis if self.granularity == "channel" else -1
        return tuple(d for d in range(dimensions) if d != kept)


def student_quantile(alpha: float, n: int) -> float:
    """The t with P(|T| > t) = alpha for n observations, n - 1 degrees of freedom."""
    return float(stats.t.isf(alpha / 2, n - 1))

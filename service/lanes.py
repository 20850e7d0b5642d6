"""How a batch runs: on all cores, or on one of them while each of the others has a batch of its own.

Threads that share a product wait for the one whose core the event loop has, or that was not woken in time; a
batch on one thread waits for nobody. So with rows enough for every core, a model answers more of them in
batches on single threads; with fewer, all cores answer one batch sooner. Whether it pays, and with batches of
how many rows, is measured when the model is loaded (`served.py`), not under load, whose noise would decide.
The trade-off: onnxruntime cannot run a session on one thread now and on several then, so where it pays the
weights are in memory twice.
"""

from dataclasses import dataclass

from runtime.tensor import TensorModel
from service.cost import CostModel


@dataclass(slots=True, eq=False)
class Way:
    """A model as a number of cores run it, and what that costs."""

    model: TensorModel
    cost: CostModel
    cores: int


@dataclass(slots=True, eq=False)
class Lanes:
    """The way on all cores, and the one on a single core where that pays under load."""

    wide: Way
    narrow: Way | None = None

    def choose(self, rows: int, length: int) -> Way:
        """The way for the next batch, where so many rows of `length` run and wait together."""
        if self.narrow and rows > self.wide.cores * self.narrow.cost.best_rows(length):
            return self.narrow
        return self.wide

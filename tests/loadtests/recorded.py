"""Recordings made of samples, for tests that need no server."""

from loadtests.recording import Recording, Table
from loadtests.sample import Sample
from loadtests.samples import Samples


class Kept(Table):
    """Keeps the samples themselves as well, which a run does not."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.whole: list[Sample] = []

    def append(self, sample: Sample) -> None:
        super().append(sample)
        self.whole.append(sample)


def recorded(samples: list[Sample], **fields: object) -> Recording:
    """A recording of these samples, whose table keeps them in `whole`."""
    recording = Recording(len(samples), Kept(4), **fields)
    recording.sent = int(fields.get("sent", len(samples)))
    for sample in samples:
        recording.add(sample)
    return recording


def columns(samples: list[Sample], start: float = 0.0) -> Samples:
    """The same samples as the maths wants them."""
    return recorded(samples).table.samples(start)

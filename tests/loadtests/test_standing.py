import time

import pytest

from loadtests import standing
from loadtests.sample import Sample
from tests.loadtests.recorded import recorded


def samples(error=None):
    return [Sample(0, 0.0, sent=0.0, ended=0.004), Sample(0, 0.0, sent=0.0, ended=0.1, error=error)]


def test_several_generators_stand_where_all_of_them_stand_together():
    first = standing.of(recorded(samples("timeout"), sent=5))
    second = standing.of(recorded(samples(), sent=3))
    both = standing.together([first, second])
    assert (both.sent, both.ended, both.failed, both.kinds) == (8, 4, 1, ["timeout"])
    assert both.latest_ms == pytest.approx([4, 4, 100])


def test_what_one_tells_another_reads(tmp_path):
    path, recording = tmp_path / "0.standing", recorded(samples(), sent=5)
    assert standing.read([path]).sent == 0
    with standing.telling(path)(recording):
        while not path.exists():
            time.sleep(0.05)
    assert standing.read([path, tmp_path / "silent"]).sent == 5

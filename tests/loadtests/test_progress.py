import io
from collections import deque

from rich.console import Console

from loadtests import standing
from loadtests.progress import Live, live, sparkline
from loadtests.sample import Sample
from tests.loadtests.recorded import recorded


def look(samples, **fields):
    recording = recorded(samples, **fields)
    return lambda: standing.of(recording)


def test_the_live_view_tells_where_the_run_stands():
    good, bad = Sample(0, 0.0, sent=0.0, ended=0.004), Sample(0, 0.0, sent=0.0, ended=0.1, error="timeout")
    samples = [*[good] * 11, bad]
    console = Console(file=io.StringIO(), width=100)
    console.print(Live(look(samples, sent=15), 11))
    text = console.file.getvalue()
    assert "/ 11 s   sent 15" in text
    assert "p50 4.00  p99 n/a ms" in text
    assert "in flight  3" in text
    assert "timeout" in text


def test_a_run_that_has_measured_nothing_yet_is_shown_too():
    console = Console(file=io.StringIO(), width=100)
    console.print(Live(look([]), float("inf")))
    assert "sent 0" in console.file.getvalue()


def test_a_sparkline_is_as_high_as_its_values():
    assert sparkline(deque([0, 1, 4, 8])) == "▁▂▅█"
    assert sparkline(deque()) == ""


def test_nothing_is_drawn_where_there_is_no_terminal(capsys):
    with live(11)(recorded([])):
        pass
    assert capsys.readouterr() == ("", "")

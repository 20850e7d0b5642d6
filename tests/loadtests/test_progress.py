from loadtests.client import Sample
from loadtests.progress import line, live
from loadtests.session import Recording


def test_the_live_line_tells_where_the_run_stands():
    samples = [Sample(0, 0.0, sent=0.0, ended=0.004), Sample(0, 0.0, sent=0.0, ended=0.1, error="timeout")]
    text = line(Recording(planned=9, sent=5, failed=1, samples=samples), 11).plain
    assert "/ 11 s   sent 5   in flight 3   failed 1   latest p50 4.0 ms" in text


def test_nothing_is_drawn_where_there_is_no_terminal(capsys):
    with live(11)(Recording(planned=0)):
        pass
    assert capsys.readouterr() == ("", "")

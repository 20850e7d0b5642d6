from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtests.dialects.sse import EventParser

STREAM = (
    b": hello\nevent: x\ndata: one\n\ndata:two\r\ndata: lines\r\n\r\n\nid: 3\n\ndata: [DONE]\n\ndata: cut"
)
EVENTS = [b"one", b"two\nlines", b"[DONE]"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_do_not_depend_on_where_the_stream_was_cut(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = EventParser()
    pieces = [STREAM[start:end] for start, end in pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from loadtests.html import svg

values = st.floats(1e-3, 1e6)


@given(values, values, st.booleans())
def test_ticks_lie_on_the_axis_in_order(low, high, log):
    assume(high > low * 1.01)
    axis = svg.across(low, high, log)
    ticks = axis.ticks()
    assert ticks == sorted(ticks)
    assert all(axis.start - 0.1 <= axis.at(tick) <= axis.end + 0.1 for tick in ticks)


@pytest.mark.parametrize("log", [False, True])
def test_an_axis_of_one_value_can_be_drawn(log):
    axis = svg.upward(5.0, 5.0, log)
    assert axis.end <= axis.at(5.0) <= axis.start


def test_texts_and_attributes_are_escaped():
    drawn = svg.element("text", "<b> & c", class_='a"b')
    assert drawn == '<text class="a&#34;b">&lt;b&gt; &amp; c</text>'

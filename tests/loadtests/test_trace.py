import pytest

from loadtests import trace
from loadtests.trace import Line


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_of_azures_form_is_read(tmp_path):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.68,374,44\n"
        "2023-11-16 18:15:50.18,396,109\n"
    )
    lines = trace.read(write(tmp_path, "azure.csv", text))
    assert lines[0] == Line(0.0, 374, 44)
    assert lines[1].time == pytest.approx(3.5)
    assert (lines[1].prompt, lines[1].answer) == (396, 109)


def test_json_lines_of_mooncakes_form_are_read(tmp_path):
    text = '{"timestamp": 27482, "input_length": 6955, "output_length": 52}\n\n{"timestamp": 30535}\n'
    assert trace.read(write(tmp_path, "mooncake.jsonl", text)) == [Line(0.0, 6955, 52), Line(3053.0)]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.csv", "timestamp\n1\n3\n2\n", "a.csv:4: 2 comes before the line above; sort the trace by time"),
        ("a.csv", "when\n1\n", "a.csv:2: no time; a column is called timestamp or time or arrival_time"),
        ("a.csv", "time,input_tokens\n1,many\n", "a.csv:2: invalid literal"),
        ("a.csv", "time\n1\nnan\n", "a.csv:3: nan is no time"),
        ("a.csv", "time\n", "holds no request"),
        ("a.jsonl", '{"time": 1}\n{"time"', "a.jsonl:2: not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: not a JSON object"),
    ],
)
def test_a_trace_that_cannot_be_replayed_is_refused_with_its_line(tmp_path, name, text, complaint):
    with pytest.raises(ValueError, match=name) as caught:
        trace.read(write(tmp_path, name, text))
    assert complaint in str(caught.value)

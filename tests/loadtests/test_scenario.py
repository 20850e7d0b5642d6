from pathlib import Path

import pytest

from loadtests import scenario as scenarios
from loadtests.errors import InvalidOption, InvalidScenario

GOOD = """\
arrivals: {kind: poisson, rate: 20}
duration: 10
mix:
  - dialect: openai-completions
    model: gpt-mini
    prompts: [hello]
  - dialect: oip-infer
    model: lenet5
    weight: 3
    inputs:
      - {name: image, shape: [1, 1, 32, 32]}
objectives:
  p99_ms: 50
  ttft_p90_ms: 200
"""


def refusal(scenario_file, text):
    with pytest.raises(InvalidScenario) as caught:
        scenarios.load(scenario_file(text))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_good_scenario_loads_and_cannot_be_changed(scenario_file):
    scenario = scenarios.load(scenario_file(GOOD))
    assert [request.target for request in scenario.mix] == ["gpt-mini", "lenet5"]
    with pytest.raises(ValueError, match="frozen"):
        scenario.seed = 1


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("duration: 10", "durations: 10", "2: durations: unknown key 'durations'; did you mean 'duration'?"),
        ("rate: 20", "rates: 20", "1: arrivals.rates: unknown key 'rates'; did you mean 'rate'?"),
        ("model: gpt-mini", "modle: gpt-mini", "5: mix[0].modle: unknown key 'modle'; did you mean 'model'?"),
        ("shape:", "shap:", "11: mix[1].inputs[0].shap: unknown key 'shap'; did you mean 'shape'?"),
        ("p99_ms", "p98_ms", "13: objectives.p98_ms: unknown key 'p98_ms'; did you mean 'p99_ms'?"),
        ("oip-infer", "oip-infr", "7: mix[1]: unknown dialect 'oip-infr'; did you mean 'oip-infer'?"),
        ("kind: poisson", "kind: poison", "1: arrivals: unknown kind 'poison'; did you mean 'poisson'?"),
        ("kind: poisson, ", "", "1: arrivals: the key 'kind' is missing"),
        ("duration: 10", "duration: -1", "2: duration: Input should be greater than 0"),
        ("duration: 10", "duration: .inf", "2: duration: Input should be a finite number"),
        ("    model: lenet5\n", "", "7: mix[1]: the key 'model' is missing"),
        ("prompts: [hello]", "prompts: []", "4: mix[0]: give one of prompts, prompts_file and generated"),
        ("prompts: [hello]", "prompts_file: gone.txt", "6: mix[0].prompts_file: cannot read"),
        ("prompts: [hello]", "prompts: [hello]\n    stream: false", "15: objectives.ttft_p90_ms: no request"),
        ("shape: [1, 1, 32, 32]", "shape: [2], data: [1]", "11: mix[1].inputs[0].data: 1 values do not"),
        ("mix:", "mix: [", "4: not YAML"),
        (
            "poisson, rate: 20}\nduration: 10",
            "stages, stages: [{rate: 1, duration: 9}]}\nwarmup: auto",
            "2: warmup: stages arrivals never settle; give seconds",
        ),
        (
            "prompts: [hello]",
            "generated: {word: 3}",
            "6: mix[0].generated.word: unknown key 'word'; did you mean",
        ),
        (
            "poisson, rate: 20",
            "gamma, rate: 20, cv: 1000",
            "1: arrivals.cv: Input should be less than or equal",
        ),
        ("rate: 20", "rate: 20, cv: 2", "1: arrivals.cv: unknown key 'cv'; valid are kind, rate"),
        ("poisson, rate: 20", "stages, stages: []", "1: arrivals.stages: Tuple should have at least 1 item"),
        ("poisson, rate: 20", "trace, file: gone.csv", "1: arrivals.file: cannot read"),
        ("p99_ms: 50", "query_p99_ms: 50", "13: objectives.query_p99_ms: only multi-stream arrivals"),
        ("duration: 10", "headers: {Authorization: x}", "2: headers: Authorization is set by us; a key goes"),
        ("duration: 10", 'headers: {"a b": x}', "2: headers: 'a b' and its value are no header"),
        (
            "weight: 3",
            "cancel: {share: 2}",
            "9: mix[1].cancel.share: Input should be less than or equal to 1",
        ),
    ],
)
def test_a_mistake_is_refused_with_file_line_key_and_remedy(scenario_file, old, new, complaint):
    assert f"scenario.yaml:{complaint}" in refusal(scenario_file, GOOD.replace(old, new))


def test_something_else_than_a_mapping_is_refused(scenario_file):
    assert "a scenario is a mapping" in refusal(scenario_file, "- 1\n")


def test_a_missing_file_suggests_a_shipped_scenario(tmp_path):
    with pytest.raises(InvalidScenario, match="did you mean 'digits'"):
        scenarios.load(tmp_path / "digit")


@pytest.mark.parametrize("path", sorted(scenarios.SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_scenarios_load_by_name_and_open_with_their_command(path):
    scenarios.load(scenarios.find(Path(path.stem)))
    assert path.read_text(encoding="utf-8").startswith(f"# modelpress loadtest {path.stem} --url ")


def test_the_scenario_in_the_documentation_loads(scenario_file):
    text = (Path(__file__).parents[2] / "docs" / "loadtests.md").read_text(encoding="utf-8")
    assert len(scenarios.load(scenario_file(text.split("```yaml\n")[1].split("```")[0])).mix) == 3


def test_prompts_come_from_a_file_beside_the_scenario(scenario_file, tmp_path):
    (tmp_path / "prompts.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    scenario = scenarios.load(scenario_file(GOOD.replace("prompts: [hello]", "prompts_file: prompts.txt")))
    assert scenario.mix[0].prompts_file == tmp_path / "prompts.txt"
    assert scenarios.override(scenario, seed=1).mix[0] == scenario.mix[0]


def test_the_command_line_overrides_the_file(scenario_file):
    scenario = scenarios.load(scenario_file(GOOD))
    changed = scenarios.override(scenario, rate=5, duration=3, seed=7, model="other")
    assert (changed.arrivals.rate, changed.duration, changed.seed) == (5, 3, 7)
    assert {request.model for request in changed.mix} == {"other"}
    assert scenarios.override(scenario) == scenario


def test_an_override_is_checked_like_the_file(scenario_file, scenario):
    with pytest.raises(InvalidOption, match="--rate: Input should be greater than 0"):
        scenarios.override(scenarios.load(scenario_file(GOOD)), rate=0)
    with pytest.raises(InvalidOption, match="no request in the scenario names a model"):
        scenarios.override(scenario(), model="lenet5")


def test_a_trace_out_of_order_is_refused_with_its_line(scenario_file, tmp_path):
    (tmp_path / "trace.csv").write_text("time\n1\n3\n2\n", encoding="utf-8")
    text = GOOD.replace("kind: poisson, rate: 20", "kind: trace, file: trace.csv")
    assert "trace.csv:4: 2 comes before the line above; sort the trace" in refusal(scenario_file, text)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("time,input_tokens\n1,5\n", "the trace has sizes, which only `generated` prompts can take"),
        ("time,request\n1,0\n2,7\n", "request 2 is of entry 7, which the mix lacks"),
    ],
)
def test_a_trace_must_fit_the_mix(scenario_file, tmp_path, lines, complaint):
    (tmp_path / "trace.csv").write_text(lines, encoding="utf-8")
    text = GOOD.replace("kind: poisson, rate: 20", "kind: trace, file: trace.csv")
    assert complaint in refusal(scenario_file, text)


@pytest.mark.parametrize(
    ("arrivals", "keys", "span"),
    [
        ("{kind: poisson, rate: 1}", "", 11),
        ("{kind: poisson, rate: 1}", "duration: 5", 6),
        ("{kind: poisson, rate: 1}", "warmup: auto", 10),
        ("{kind: stages, stages: [{duration: 7, rate: 1}, {duration: 8, rate: 1, to: 5}]}", "", 15),
        ("{kind: offline, requests: 9}", "", float("inf")),
        ("{kind: closed, users: 2}", "", 11),
    ],
)
def test_how_long_a_run_takes(scenario_file, arrivals, keys, span):
    text = f"arrivals: {arrivals}\nmix: [{{dialect: http}}]\n{keys}\n"
    assert scenarios.load(scenario_file(text)).span == span


def test_arrivals_without_a_rate_have_none_to_override(scenario_file):
    scenario = scenarios.load(scenario_file("arrivals: {kind: single-stream}\nmix: [{dialect: http}]\n"))
    with pytest.raises(InvalidOption, match="--rate: single-stream arrivals have no rate to change"):
        scenarios.override(scenario, rate=5)

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from loadtests.openmetrics import text
from loadtests.result import build
from loadtests.sample import Sample
from tests.loadtests.recorded import recorded


def test_the_file_is_openmetrics_in_seconds(scenario):
    samples = [
        Sample(row % 2, planned=row / 10, sent=row / 10, ended=row / 10 + 0.05, tokens=3) for row in range(20)
    ]
    mix = [{"dialect": "http", "path": "/a"}, {"dialect": "http", "path": "/b"}]
    result = build(scenario(duration=2, mix=mix), "http://127.0.0.1:1", recorded(samples))
    families = {family.name: family for family in text_string_to_metric_families(text(result))}
    assert families["loadtest_outcome"].samples[0].value == 1
    latency = {
        (sample.labels["request"], sample.labels["quantile"]): sample.value
        for sample in families["loadtest_latency_seconds"].samples
    }
    assert latency == {("", "0.5"): 0.05}
    throughput = {s.labels["request"]: s.value for s in families["loadtest_throughput_rps"].samples}
    assert throughput[""] == result.summary.throughput_rps

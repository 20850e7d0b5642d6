"""What is measured, and that strangers cannot make it grow."""

import shutil
import subprocess
import sys

import pytest

COUNT = "modelpress_request_duration_seconds_count"


def test_requests_are_counted_by_model_route_and_status(server):
    series = f'{COUNT}{{model="digits-tiny",route="/predict/{{model}}",status="200"}}'
    before = server.metrics().get(series, 0)
    server.http.post("/predict/digits-tiny", json={"pixels": [[1]]})
    assert server.metrics()[series] == before + 1


def test_tokens_and_the_first_ones_time_are_counted(server):
    names = [
        'modelpress_prompt_tokens_total{model="chatter-tiny"}',
        'modelpress_generation_tokens_total{model="chatter-tiny"}',
        'modelpress_time_to_first_token_seconds_count{model="chatter-tiny"}',
    ]
    before = [server.metrics().get(name, 0) for name in names]
    body = {"model": "chatter-tiny", "prompt": ["ab", "cde"], "max_tokens": 7}
    server.http.post("/v1/completions", json=body)
    assert [server.metrics()[name] - old for name, old in zip(names, before, strict=True)] == [5, 14, 2]


def test_calls_are_counted_by_the_graph_that_ran_them(server):
    series = 'modelpress_graph_calls_total{graph="decoder.onnx",model="chatter-tiny"}'
    before = server.metrics().get(series, 0)
    server.http.post("/v1/completions", json={"model": "chatter-tiny", "prompt": "ab", "max_tokens": 7})
    # One reads the prompt and gives the first token.
    assert server.metrics()[series] - before == 7


def test_random_paths_and_models_make_no_series(server):
    def ask_nonsense(round_: int) -> None:
        for index in range(5):
            name = f"nonsense{round_}{index}"
            server.http.get(f"/{name}")
            server.http.get(f"/v1/{name}")
            server.http.get(f"/v2/models/{name}")
            server.http.post(f"/predict/{name}", json={})
            server.http.post("/v1/completions", json={"model": name, "prompt": "a"})

    ask_nonsense(0)
    before = server.metrics().keys()
    ask_nonsense(1)
    assert server.metrics().keys() == before
    assert not any("nonsense" in name for name in before)


def test_idle_means_nothing_in_flight(server, eventually):
    # The scrape itself is the one request.
    eventually(lambda: server.metrics()["modelpress_requests_in_flight"] == 1)
    assert server.metrics()['modelpress_num_requests_running{model="chatter-tiny"}'] == 0
    assert server.metrics()['modelpress_model_load_seconds{model="digits-tiny"}'] > 0


def test_several_workers_are_summed(environment, tmp_path):
    count = "from service import metrics; metrics.GENERATION_TOKENS.labels('m').inc(2)"
    show = "from service import metrics; print(metrics.exposition().decode())"
    workers = environment | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", count], env=workers, check=True)
    shown = subprocess.run(
        [sys.executable, "-c", show], env=workers, check=True, capture_output=True, text=True
    )
    assert 'modelpress_generation_tokens_total{model="m"} 4.0' in shown.stdout


def test_a_worker_that_was_killed_before_its_first_entry_hides_nothing_of_the_others(environment, tmp_path):
    count = "from service import metrics; metrics.GENERATION_TOKENS.labels('m').inc(2)"
    show = "from service import metrics; print(metrics.exposition().decode())"
    workers = environment | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", count], env=workers, check=True)
    for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemax"):
        (tmp_path / f"{kind}_1.db").touch()
    shown = subprocess.run(
        [sys.executable, "-c", show], env=workers, check=True, capture_output=True, text=True
    )
    assert 'modelpress_generation_tokens_total{model="m"} 2.0' in shown.stdout


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's prometheus, is missing")
def test_promtool_finds_nothing_wrong(server):
    server.http.post("/predict/digits-tiny", json={"pixels": [[1]]})
    server.http.post("/v1/completions", json={"model": "chatter-tiny", "prompt": "a", "max_tokens": 2})
    exposition = server.http.get("/metrics").content
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")

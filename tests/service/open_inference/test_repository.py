"""The model repository, changed by the unmodified `tritonclient` while the server runs."""

import shutil
from pathlib import Path

import bentoml
import pytest
from bentoml._internal.models import ModelStore
from tritonclient import http
from tritonclient.utils import InferenceServerException

from runtime.bundle import Bundle, write_bundle


@pytest.fixture
def stocked(environment, bundles, tmp_path) -> dict[str, str]:
    """An environment whose model store, `models` in the test's folder, holds both bundles."""
    (tmp_path / "models").mkdir()
    for name in ("digits", "chatter"):
        publish(bundles / name, tmp_path / "models")
    return environment | {"BENTOML_HOME": str(tmp_path)}


def publish(folder: Path, store: Path) -> str:
    """Put a bundle into a model store; its version."""
    manifest = Bundle.open(folder).manifest
    tag = f"{manifest.tag}:{manifest.version}"
    with bentoml.models.create(tag, module="modelpress", _model_store=ModelStore(store)) as model:
        shutil.copytree(folder, model.path, dirs_exist_ok=True)
    return manifest.version


def states(client: http.InferenceServerClient) -> dict[str, str]:
    return {each["name"]: each["state"] for each in client.get_model_repository_index()}


def test_models_come_and_go(serve_in, stocked, bundles: Path):
    with (
        serve_in(stocked, "digits-tiny") as server,
        http.InferenceServerClient(server.url.removeprefix("http://")) as client,
    ):
        assert states(client) == {"digits-tiny": "READY", "chatter-tiny": "UNAVAILABLE"}
        client.load_model("chatter-tiny")
        assert states(client) == {"digits-tiny": "READY", "chatter-tiny": "READY"}
        assert client.is_model_ready("chatter-tiny")
        client.unload_model("digits-tiny")
        assert states(client) == {"digits-tiny": "UNAVAILABLE", "chatter-tiny": "READY"}
        assert not client.is_model_ready("digits-tiny")
        ready = server.http.post("/v2/repository/index", json={"ready": True}).json()
        assert [each["name"] for each in ready] == ["chatter-tiny"]


def test_what_was_unloaded_from_a_folder_comes_back(serve, bundles: Path):
    with (
        serve(str(bundles / "digits"), str(bundles / "chatter")) as server,
        http.InferenceServerClient(server.url.removeprefix("http://")) as client,
    ):
        client.unload_model("digits-tiny")
        assert states(client) == {"chatter-tiny": "READY", "digits-tiny": "UNAVAILABLE"}
        client.load_model("digits-tiny")
        assert states(client) == {"chatter-tiny": "READY", "digits-tiny": "READY"}
        # Its folder is known again, too.
        client.load_model("digits-tiny")


def test_a_version_that_is_published_later_takes_over_and_goes_back(serve_in, stocked, tmp_path: Path):
    with serve_in(stocked, "digits-tiny") as server:
        load = "/admin/models/digits-tiny/load"
        old = server.http.post(load).json()["version"]
        manifest = Bundle.open(tmp_path / "models" / "digits-tiny" / old).manifest
        graph = tmp_path / "models" / "digits-tiny" / old / "model.onnx"
        changed = manifest.model_copy(update={"labels": ("night", "day")})
        write_bundle(tmp_path / "changed", changed, {"model.onnx": graph})
        new = publish(tmp_path / "changed", tmp_path / "models")
        assert server.http.post("/v2/repository/models/digits-tiny/load").json() == {}
        assert server.http.get("/v2/models/digits-tiny").json()["versions"] == [new]
        for version in (old, new):
            answer = server.http.post(load, json={"version": version})
            assert answer.json() == {"model": "digits-tiny", "version": version}
            assert server.http.get("/v2/models/digits-tiny").json()["versions"] == [version]
        beside = server.http.post(load, json={"version": old, "take_over": False})
        assert beside.json() == {"model": "digits-tiny", "version": old}
        assert server.http.get("/v2/models/digits-tiny").json()["versions"] == [new, old]
        index = server.http.post("/v2/repository/index", json={"ready": True}).json()
        assert [each["version"] for each in index] == [new, old]
        # No path from a request is opened, and no other version is given for the one that is asked for.
        for version in ("../digits-tiny", "v9"):
            assert server.http.post(load, json={"version": version}).status_code == 400


def test_what_cannot_be_loaded_or_unloaded_says_why(client):
    with pytest.raises(InferenceServerException, match="nonsense"):
        client.load_model("nonsense")
    with pytest.raises(InferenceServerException, match="did you mean 'digits-tiny'"):
        client.unload_model("digit-tiny")
    with pytest.raises(InferenceServerException, match="the server's own store"):
        client.load_model("digits-tiny", config="{}")
    with pytest.raises(InferenceServerException):
        client.load_model("../bundles/digits")

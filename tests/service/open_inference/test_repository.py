"""The model repository, changed by the unmodified `tritonclient` while the server runs."""

import shutil
from pathlib import Path

import bentoml
import pytest
from bentoml._internal.models import ModelStore
from tritonclient import http
from tritonclient.utils import InferenceServerException

from runtime.bundle import Bundle


@pytest.fixture
def stocked(environment, bundles, tmp_path) -> dict[str, str]:
    """An environment whose model store holds both bundles."""
    (tmp_path / "models").mkdir()
    store = ModelStore(tmp_path / "models")
    for name in ("digits", "chatter"):
        manifest = Bundle.open(bundles / name).manifest
        tag = f"{manifest.tag}:{manifest.version}"
        with bentoml.models.create(tag, module="modelpress", _model_store=store) as model:
            shutil.copytree(bundles / name, model.path, dirs_exist_ok=True)
    return environment | {"BENTOML_HOME": str(tmp_path)}


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


def test_what_cannot_be_loaded_or_unloaded_says_why(client):
    with pytest.raises(InferenceServerException, match="nonsense"):
        client.load_model("nonsense")
    with pytest.raises(InferenceServerException, match="did you mean 'digits-tiny'"):
        client.unload_model("digit-tiny")
    with pytest.raises(InferenceServerException, match="the server's own store"):
        client.load_model("digits-tiny", config="{}")
    with pytest.raises(InferenceServerException):
        client.load_model("../bundles/digits")

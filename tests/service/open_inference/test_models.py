"""Health and metadata, asked for by the unmodified `tritonclient`."""

from runtime.bundle import Bundle

MODEL = "digits-tiny"


def test_health_and_metadata(client, bundles):
    manifest = Bundle.open(bundles / "digits").manifest
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, manifest.version)
    assert not client.is_model_ready("nonsense")
    assert client.get_server_metadata()["name"] == "modelpress"
    metadata = client.get_model_metadata(MODEL, manifest.version)
    assert metadata["versions"] == [manifest.version]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]


def test_the_servers_metadata_are_at_both_its_addresses(server):
    assert server.http.get("/v2/").json() == server.http.get("/v2").json()


def test_a_text_models_tensors_are_texts(client):
    metadata = client.get_model_metadata("chatter-tiny")
    assert metadata["inputs"] == [{"name": "text_input", "datatype": "BYTES", "shape": [-1]}]
    assert metadata["outputs"] == [{"name": "text_output", "datatype": "BYTES", "shape": [-1]}]

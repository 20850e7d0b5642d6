import os
from pathlib import Path

import pytest

from compress.publish import export_folder, find, newest, publish
from runtime.bundle import Bundle
from runtime.errors import BundleDamaged, BundleNotFound


@pytest.fixture
def store() -> Path:
    """The tests' own model store, emptied: BentoML opens it once in a process."""
    import bentoml

    for model in bentoml.models.list():
        bentoml.models.delete(model.tag)
    return Path(os.environ["BENTOML_HOME"])


def test_a_published_bundle_is_found_whole(store: Path, text_bundle: Bundle) -> None:
    tag, stored = publish(text_bundle)
    assert tag == f"tiny-llama-fp32:{text_bundle.manifest.version}"
    assert stored.path.is_relative_to(store)
    for reference in ("tiny-llama-fp32", tag, str(stored.path)):
        assert find(reference).manifest == stored.manifest


def test_publishing_again_replaces(store: Path, text_bundle: Bundle) -> None:
    publish(text_bundle)
    publish(text_bundle)
    assert [bundle.manifest.tag for bundle in newest()] == ["tiny-llama-fp32"]


def test_a_misspelt_name_gets_the_nearest(store: Path, text_bundle: Bundle) -> None:
    with pytest.raises(BundleNotFound, match="there is none"):
        find("tiny-llama-fp32")
    publish(text_bundle)
    with pytest.raises(BundleNotFound, match="did you mean 'tiny-llama-fp32'"):
        find("tiny-lama-fp32")


def test_a_damaged_published_bundle_is_refused(store: Path, text_bundle: Bundle) -> None:
    _, stored = publish(text_bundle)
    with (stored.path / "decoder.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleDamaged):
        find("tiny-llama-fp32")


def test_a_bundle_is_also_a_plain_folder(text_bundle: Bundle, tmp_path: Path) -> None:
    written = export_folder(text_bundle, tmp_path / "plain")
    assert Bundle.open(tmp_path / "plain").manifest == written.manifest

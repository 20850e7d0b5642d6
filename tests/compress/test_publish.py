import fcntl
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compress.errors import OutputError
from compress.publish import check_folder, export_folder, find, newest, publish
from runtime.bundle import Bundle, write_bundle
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


def test_a_bundle_without_its_manifest_is_damaged_and_not_unknown(store: Path, text_bundle: Bundle) -> None:
    tag, stored = publish(text_bundle)
    (stored.path / "manifest.json").write_text("{")
    for reference in ("tiny-llama-fp32", tag):
        with pytest.raises(BundleDamaged, match="not a valid manifest"):
            find(reference)
    assert newest() == []


def test_half_of_a_model_in_the_store_is_named(store: Path) -> None:
    half = store / "models" / "other" / "version"
    half.mkdir(parents=True)
    try:
        with pytest.raises(BundleDamaged, match=f"cannot be listed: .*; remove {half}"):
            newest()
    finally:
        shutil.rmtree(half.parent)


def test_a_bundle_is_also_a_plain_folder(text_bundle: Bundle, tmp_path: Path) -> None:
    written = export_folder(text_bundle, tmp_path / "plain")
    assert Bundle.open(tmp_path / "plain").manifest == written.manifest


PUBLISH = """
import sys
from compress.publish import publish
from runtime.bundle import Bundle

publish(Bundle.open(sys.argv[1]))
"""


def test_a_bundle_is_whole_as_soon_as_it_is_there(text_bundle: Bundle, tmp_path: Path) -> None:
    """Killed while it is put into the store, it is not in there by half."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"w" * 50_000_000)
    sources = {name: text_bundle.path / name for name in text_bundle.manifest.files}
    large = write_bundle(tmp_path / "large", text_bundle.manifest, {**sources, "weights.bin": weights})
    own = {"BENTOML_HOME": str(tmp_path / "bento"), "PYTHONPATH": os.pathsep.join(sys.path)}
    place = tmp_path / "bento" / "models" / large.manifest.tag / large.manifest.version
    command = [sys.executable, "-c", PUBLISH, str(large.path)]
    with subprocess.Popen(command, env={**os.environ, **own}) as process:
        while process.poll() is None and not place.exists():
            time.sleep(0.0001)
        process.kill()
    assert Bundle.open(place).manifest.files == large.manifest.files


def test_what_a_kill_has_left_is_removed_while_nobody_else_publishes(
    store: Path, text_bundle: Bundle
) -> None:
    left = store / ".publishing-left"
    left.mkdir()
    with ThreadPoolExecutor() as pool, (store / ".publishing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        publishing = pool.submit(publish, text_bundle)
        with pytest.raises(TimeoutError):
            publishing.result(0.5)
        # It may be what another process is publishing.
        assert left.exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        _, stored = publishing.result(60)
    assert not list(store.glob(".publishing-*"))
    assert Bundle.open(stored.path).manifest.files == text_bundle.manifest.files


def test_what_is_no_bundle_is_not_replaced(text_bundle: Bundle, tmp_path: Path) -> None:
    target = tmp_path / text_bundle.manifest.tag
    target.mkdir()
    export_folder(text_bundle, target)
    export_folder(text_bundle, target)
    for name in ("notes.txt", "manifest.json"):
        other = tmp_path / name.replace(".", "-")
        other.mkdir()
        (other / name).write_text("{}")
        with pytest.raises(OutputError, match="is no bundle; move it away"):
            export_folder(text_bundle, other)
        assert (other / name).read_text() == "{}"
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputError, match="is no bundle"):
        export_folder(text_bundle, tmp_path / "file")


def test_a_file_is_no_place_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_folder(tmp_path / "new" / "newer")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="file: a file; --out names the folder"):
            check_folder(place)

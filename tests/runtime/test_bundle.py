import json
from pathlib import Path

import pytest

from runtime.bundle import MANIFEST, Bundle, replace_folder, write_bundle
from runtime.errors import BundleDamaged, BundleNotFound
from runtime.manifest import FeedForwardGraph, Lineage, Manifest, Signature, StepRecord, TensorSpec


@pytest.fixture
def manifest() -> Manifest:
    tensor = TensorSpec(name="x", dtype="float32", shape=("batch", 3))
    return Manifest(
        name="net",
        variant="int8",
        task="tensor",
        signature=Signature(inputs=(tensor,), outputs=(tensor,)),
        graph=FeedForwardGraph(),
        lineage=Lineage(source="zoo:net", steps=(StepRecord(method="quantize", figures={"a": 1.5}),)),
    )


@pytest.fixture
def bundle(manifest: Manifest, tmp_path: Path) -> Bundle:
    source = tmp_path / "graph"
    source.write_bytes(bytes(range(256)) * 10)
    return write_bundle(tmp_path / "bundle", manifest, {"model.onnx": source})


def test_what_is_written_is_read(bundle: Bundle) -> None:
    opened = Bundle.open(bundle.path)
    assert opened.manifest == bundle.manifest
    assert opened.file("model.onnx").stat().st_size == 2560


def test_the_version_is_what_the_content_is(bundle: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", manifest, {"model.onnx": bundle.file("model.onnx")})
    assert again.manifest.version == bundle.manifest.version
    other = manifest.model_copy(update={"variant": "int4"})
    changed = write_bundle(tmp_path / "other", other, {"model.onnx": bundle.file("model.onnx")})
    assert changed.manifest.version != bundle.manifest.version


@pytest.mark.parametrize("place", [0, 1279, 2559])
def test_one_changed_byte_is_found(bundle: Bundle, place: int) -> None:
    path = bundle.path / "model.onnx"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match=r"model\.onnx: its sha256 is not the manifest's"):
        Bundle.open(bundle.path)


def test_a_truncated_file_is_found(bundle: Bundle) -> None:
    path = bundle.path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleDamaged, match="2559 bytes where the manifest says 2560"):
        Bundle.open(bundle.path)


def test_a_missing_file_is_found(bundle: Bundle) -> None:
    (bundle.path / "model.onnx").unlink()
    with pytest.raises(BundleDamaged, match=r"model\.onnx: missing"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize("key", ["name", "labels", "lineage", "provenance"])
def test_an_edited_manifest_is_found(bundle: Bundle, key: str) -> None:
    path = bundle.path / MANIFEST
    content = json.loads(path.read_text())
    edits = {"name": "other", "labels": ["x"], "lineage": {"source": "zoo:better"}, "provenance": {"seed": 9}}
    path.write_text(json.dumps({**content, key: edits[key]}))
    with pytest.raises(BundleDamaged, match="seal does not match"):
        Bundle.open(bundle.path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content[:50], "Invalid JSON"),
        (lambda content: content.replace('"task"', '"tsak"'), "task"),
        (
            lambda content: content.replace('"schema_version": 1', '"schema_version": 2'),
            "of schema_version 2, and this modelpress reads up to 1; use a newer one",
        ),
        (
            lambda content: content.replace('"schema_version": 1', '"schema_version": 0'),
            "should be 1; publish",
        ),
        (lambda content: content.replace('"model.onnx": {', '"../model.onnx": {'), "files"),
    ],
)
def test_a_manifest_that_is_none_is_refused(bundle: Bundle, edit, message: str) -> None:  # type: ignore[no-untyped-def]
    path = bundle.path / MANIFEST
    path.write_text(edit(path.read_text()))
    with pytest.raises(BundleDamaged, match=message) as caught:
        Bundle.open(bundle.path)
    assert "\n" not in str(caught.value)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="no bundle here"):
        Bundle.open(tmp_path)


def test_a_failed_write_leaves_what_was_there(bundle: Bundle, manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bundle(bundle.path, manifest, {"model.onnx": tmp_path / "nowhere"})
    assert Bundle.open(bundle.path).manifest == bundle.manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "graph"]


def test_a_folder_stays_where_its_successor_fails(tmp_path: Path) -> None:
    target = tmp_path / "store" / "name" / "version"
    target.mkdir(parents=True)
    (target / "file").write_text("old")
    with pytest.raises(FileNotFoundError):
        replace_folder(target, tmp_path / "never-made")
    assert (target / "file").read_text() == "old"
    (tmp_path / "made").mkdir()
    replace_folder(target, tmp_path / "made")
    assert list(target.iterdir()) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "store"]


def test_a_file_that_the_manifest_does_not_name_is_not_given(bundle: Bundle) -> None:
    with pytest.raises(BundleDamaged, match="names no file"):
        bundle.file("../../etc/passwd")

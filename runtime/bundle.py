"""The bundle on disk: a folder with `manifest.json` and the files it names, each with its sha256.

Reading checks every byte before anything is loaded; writing goes to a temporary folder that is renamed into
place, so a bundle is either whole or absent. No pickle: ONNX, safetensors, JSON.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from runtime.errors import BundleDamaged, BundleNotFound
from runtime.manifest import SCHEMA_VERSION, FileRecord, Manifest

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder whose content has been checked against its manifest."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> "Bundle":
        """Read and check the bundle at `path`.

        Raises BundleNotFound where there is none, BundleDamaged where a byte differs from the manifest.
        `verify=False` skips the files' checksums, for listings that load nothing.
        """
        folder = Path(path)
        manifest = _read_manifest(folder)
        if verify:
            for name, record in manifest.files.items():
                _check_file(folder / name, record)
        return cls(folder, manifest)

    def file(self, name: str) -> Path:
        """The path of one of the manifest's files."""
        if name not in self.manifest.files:
            raise BundleDamaged(f"{self.path}: the manifest names no file '{name}'; publish the bundle again")
        return self.path / name


def write_bundle(target: Path, manifest: Manifest, files: Mapping[str, Path]) -> Bundle:
    """Copy `files` (name in the bundle -> source path) to `target` and seal the manifest over them.

    A bundle that already stands at `target` is replaced only once the new one is whole.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for name, source in files.items():
            shutil.copyfile(source, staging / name)
        records = {name: file_record(staging / name) for name in sorted(files)}
        sealed = manifest.model_copy(update={"files": records}).sealed()
        (staging / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n")
        staging.chmod(0o755)
        replace_folder(target, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(target, sealed)


def replace_folder(target: Path, new: Path) -> None:
    """Rename `new` to `target`, and what stands there to nothing; it stays where that fails."""
    old = new.with_name(f".{new.name}.replaced")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def file_record(path: Path) -> FileRecord:
    """The sha256 and size of the file at `path`."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return FileRecord(sha256=digest, size=path.stat().st_size)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleNotFound(
            f"{folder}: no bundle here (it has no {MANIFEST}); `modelpress list` shows what there is"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        if (newer := _newer_schema(path)) is not None:
            raise BundleDamaged(
                f"{path}: of schema_version {newer}, and this modelpress reads up to {SCHEMA_VERSION}; "
                "use a newer one"
            ) from None
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleDamaged(
            f"{path}: not a valid manifest: {where}: {first['msg']}; publish it again"
        ) from None
    if not manifest.is_intact():
        raise BundleDamaged(
            f"{path}: changed since it was written (its seal does not match); publish it again"
        )
    return manifest


def _newer_schema(path: Path) -> int | None:
    """The schema_version of a manifest that a later modelpress has written; None for any other."""
    try:
        version = json.loads(path.read_bytes())["schema_version"]
    except (ValueError, KeyError, TypeError):
        return None
    return version if isinstance(version, int) and version > SCHEMA_VERSION else None


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleDamaged(f"{path}: missing; the bundle is incomplete, publish it again")
    if (size := path.stat().st_size) != record.size:
        raise BundleDamaged(f"{path}: {size} bytes where the manifest says {record.size}; publish it again")
    if file_record(path).sha256 != record.sha256:
        raise BundleDamaged(
            f"{path}: its sha256 is not the manifest's: the file was changed; publish it again"
        )

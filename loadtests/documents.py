"""What `--out` has written, read again: a run, a series of them or a comparison. It shows which one it is."""

from pathlib import Path

from pydantic import ValidationError
from pydantic_core import from_json

from loadtests.compare import Comparison
from loadtests.errors import InvalidResult
from loadtests.files import RECORDED
from loadtests.point import Series
from loadtests.result import Result

Document = Result | Series | Comparison

SCHEMA_VERSION = 1

# By a field that no other has.
KINDS: dict[str, type[Document]] = {"samples": Result, "points": Series, "ratios": Comparison}


def read(path: Path) -> Document:
    """Whichever of them is there. Raises InvalidResult."""
    try:
        fields = from_json(path.read_bytes())
    except OSError as error:
        raise InvalidResult(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidResult(f"{path} is no result of a load test: {error}") from error
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise InvalidResult(
            f"{path}: of schema_version {version}, and this modelpress reads up to {SCHEMA_VERSION}; "
            "use a newer one"
        )
    found = [kind for field, kind in KINDS.items() if isinstance(fields, dict) and field in fields]
    try:
        return (found or [Result])[0].model_validate(fields, context=RECORDED)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidResult(f"{path} is no result of a load test ({where}): {first['msg']}") from error


def read_run(path: Path) -> Result:
    """A run, and nothing else. Raises InvalidResult."""
    document = read(path)
    if not isinstance(document, Result):
        raise InvalidResult(f"{path} is of several runs, and not of one")
    return document

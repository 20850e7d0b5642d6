"""Files that a scenario names: paths are relative to the scenario's own, and looked for before the run.

In a result they are what they were: read again, perhaps on another machine, it asks for none of them.
"""

from pathlib import Path

from pydantic import ValidationInfo

# The context in which the scenario of a result is validated.
RECORDED = {"recorded": True}


def is_recorded(info: ValidationInfo) -> bool:
    """Whether this scenario has been run, and its files need not be there any more."""
    return bool((info.context or {}).get("recorded"))


def beside(path: Path, info: ValidationInfo) -> Path:
    """The absolute path of a readable file. Raises ValueError."""
    if is_recorded(info):
        return path
    found: Path = (_folder(info) / path).absolute()
    try:
        with found.open("rb"):
            return found
    except OSError as error:
        raise ValueError(f"cannot read {found}: {error.strerror}") from error


def all_beside(pattern: str, info: ValidationInfo) -> tuple[str, ...]:
    """The absolute paths of every file that matches, in the order of their names. Raises ValueError."""
    path = (_folder(info) / pattern).absolute()
    found = sorted(str(match) for match in path.parent.glob(path.name) if match.is_file())
    if not found:
        raise ValueError(f"no file matches {path}")
    return tuple(found)


def _folder(info: ValidationInfo) -> Path:
    return Path((info.context or {}).get("folder", Path()))

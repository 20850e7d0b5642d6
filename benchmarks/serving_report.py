"""What `serving.py` measured, line by line: on the terminal, and as a page of the documentation."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from compress.machine import machine

LINES: list[str] = []


def say(line: str) -> None:
    """Print a line, and keep it for the page."""
    print(line, flush=True)
    LINES.append(line)


def write(page: Path, command: str, *, shared: bool) -> None:
    """All that was said as a Markdown page: one run on one machine. Further sections of the page stay.

    `shared` says whether clients and servers had the same cores.
    """
    made_on = machine()
    placed = " Clients and servers share the cores." if shared else ""
    head = (
        f"# What serving costs\n\nOne run of `{command}` on {made_on['cores']} cores of {made_on['cpu']} "
        f"({made_on['isa']}), Python {platform.python_version()}, onnxruntime {version('onnxruntime')}, "
        f"BentoML {version('bentoml')}.{placed}\n\n"
    )
    _, found, rest = (page.read_text() if page.is_file() else "").partition("\n## ")
    page.write_text(head + "".join(f"    {line}\n" for line in LINES) + found + rest)


def command() -> str:
    """How this run was started, without the folders of whoever did."""
    words = [Path(word).name if "/" in word and not word.startswith("--") else word for word in sys.argv[1:]]
    return " ".join(["python benchmarks/serving.py", *words])

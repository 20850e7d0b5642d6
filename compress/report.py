"""The HTML report: bundles beside their baselines, as one file that needs nothing else to be read.

This is the door: it gathers, asks `reporting` for the page and writes it, all of it or nothing. It measures
nothing and loads no model; every figure is a manifest's or a load test's.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from compress.errors import OutputError
from compress.reporting.group import group_by_model
from compress.reporting.page import render
from compress.reporting.served import read_result
from runtime.errors import ModelpressError
from runtime.manifest import Manifest


def write_report(manifests: Sequence[Manifest], out: Path, served: Path | None = None) -> None:
    """Write the page on `manifests` to `out`, replacing a file that stands there.

    `served` is a folder of load-test results, `<tag>.json`; those that lack are reported as not measured.
    Raises OutputError where `out` cannot be written, ModelpressError where `served` is no folder.
    """
    if served is not None and not served.is_dir():
        raise ModelpressError(f"{served}: not a folder; name the one that holds the load tests' JSON files")
    if out.is_dir():
        raise OutputError(f"{out}: a folder; name the file to write, such as {out / 'report.html'}")
    results = {manifest.tag: read_result(served, manifest.tag) for manifest in manifests}
    _write(render(group_by_model(manifests, results)), out)


def _write(page: str, out: Path) -> None:
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate in a model's output must not cost the whole page.
        unfinished.write_text(page, encoding="utf-8", errors="replace")
        unfinished.replace(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}; choose another --out") from None
    finally:
        with suppress(OSError):
            unfinished.unlink()

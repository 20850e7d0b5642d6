"""A stage's key has the code of every module that the stage imports, whatever the way it does."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import compress
from compress.dependencies import APART, PACKAGES, code_of, modules_of

ROOT = Path(compress.__path__[0]).parent
STAGES = {
    "compress.qat.step": ("compress.prune.hold",),
    "compress.distill.step": ("compress.shrink.transformer",),
    "compress.stages.export": ("compress.export.decoder", "compress.lora.attach"),
    "compress.stages.rewrite": ("compress.measure", "compress.lora.attach"),
    "compress.stages.finish": ("compress.embedding",),
    "compress.stages.judge": ("models.evaluation", "runtime.scheduler", "runtime.manifest.graph"),
    "compress.stages.compare": ("models.evaluation", "runtime.scheduler", "compress.batch_invariance"),
    "compress.stages.train": ("compress.weights",),
}
FIRST = '''"""Says `import runtime.unread`, which is none; neither is what types need."""

import compress.whole
from compress import (
    one,  # with a comment, and (brackets
    two as renamed,
)
from compress.deep.inner import some, names
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compress.typed import Type

    from compress.typed_too import Type


def later():
    from models.lazy import thing
'''
IMPORTED = {"whole", "one", "two", "deep/__init__", "deep/inner", "__init__", "first"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project of the same packages."""
    files = ["__init__", "whole", "one", "two", "typed", "typed_too", "deep/__init__", "deep/inner"]
    for name in [*(f"compress/{file}" for file in files), "models/__init__", "models/lazy", "runtime/unread"]:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    (tmp_path / "compress" / "first.py").write_text(FIRST)
    (tmp_path / "models" / "lazy.py").write_text("import runtime.last\n")
    (tmp_path / "runtime" / "last.py").write_text("import compress.first\n")
    return tmp_path


def test_an_edit_of_what_a_module_imports_is_another_code_and_no_other_edit_is(project: Path) -> None:
    found = modules_of("compress.first", root=project)
    assert set(found.values()) == {
        *(project / "compress" / f"{name}.py" for name in IMPORTED),
        *(project / "models" / f"{name}.py" for name in ("__init__", "lazy")),
        project / "runtime" / "last.py",
    }
    before = code_of("compress.first", root=project)
    for number, path in enumerate(sorted(project.rglob("*.py"))):
        # What was read of a file once is not read again: an edit is another tree.
        edited = project.parent / f"{project.name}-{number}"
        for each in project.rglob("*.py"):
            copy = edited / each.relative_to(project)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(each.read_text() + "# edited\n" * (each == path))
        assert (code_of("compress.first", root=edited) != before) == (path in found.values()), path


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_what_it_is_known_to_use_and_on_no_member_of_the_zoo(stage: str) -> None:
    found = modules_of(stage)
    assert not {stage, *STAGES[stage]} - found.keys()
    assert not any(name.startswith(APART) for name in found)


def test_no_training_depends_on_how_bundles_are_served() -> None:
    methods = ("distill", "factorize", "lora", "prune", "qat", "shrink")
    found = modules_of("compress.stages.train", *(f"compress.{method}.step" for method in methods))
    assert not {"runtime.scheduler", "runtime.model", "compress.pipeline", "compress.measure"} & found.keys()


def test_the_text_tells_what_parsing_would() -> None:
    """Of every module of the project: nothing is missed, and what is more is no module."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if name.startswith(APART):
                continue
            direct = {each for each in parsed(path) if is_module(each)}
            assert direct <= modules_of(name).keys(), name
            strangers = set().union(*(parsed(file) for file in modules_of(name).values()))
            known = {part for each in strangers | {name} for part in with_parents(each)}
            assert modules_of(name).keys() <= known, name


@cache
def parsed(path: Path) -> set[str]:
    """The modules of ours, and the names in them, that a file imports when it runs."""
    tree = ast.parse(path.read_text("utf-8"))
    checks = (n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    for_types = {id(inner) for check in checks for each in check.body for inner in ast.walk(each)}
    nodes = [node for node in ast.walk(tree) if id(node) not in for_types]
    return {name for node in nodes for name in names_of(node) if name.partition(".")[0] in PACKAGES}


def names_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0
        assert node.module
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    apart = name == APART or name.startswith(f"{APART}.")
    return not apart and (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())


def test_what_importing_loads_is_among_what_was_found() -> None:
    program = "import sys, compress.measure; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ours = {name for name in loaded.stdout.split() if name.partition(".")[0] in PACKAGES}
    assert "runtime.scheduler" in ours
    assert ours <= modules_of("compress.measure").keys()

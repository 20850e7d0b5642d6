"""The documentation is run, not trusted: its commands parse, its recipes are valid, its Python works."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import modelpress
from compress.recipe import parse_recipe
from runtime.bundle import Bundle
from tests.paths import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in any of these languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [body for language, body in found if language in languages]


def commands() -> list[str]:
    """Every `modelpress …` line of every page, without its comment."""
    lines = [line for page in PAGES for block in blocks(page, "sh", "bash") for line in block.splitlines()]
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("modelpress ")})


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documentation_is_one_that_we_have(line: str) -> None:
    root: Any = get_command(modelpress.app)
    name, *arguments = shlex.split(line)[1:]
    context = root.make_context("modelpress", [name, *arguments])
    _, command, rest = root.resolve_command(context, [name, *arguments])
    command.make_context(name, rest)


@pytest.mark.parametrize(
    "block", [b for page in PAGES for b in blocks(page, "yaml") if b.startswith("model:")]
)
def test_every_recipe_in_the_documentation_is_valid(block: str) -> None:
    assert yaml.safe_load(block)["steps"]
    parse_recipe(block)


def test_the_python_of_the_readme_runs(
    text_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from compress.publish import publish

    named = text_bundle.manifest.model_copy(update={"name": "gpt-mini", "variant": "int4"})
    publish(Bundle(text_bundle.path, named))
    (block,) = blocks(README, "python")
    exec(compile(block, str(README), "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    for target in targets:
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target

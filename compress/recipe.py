"""Recipes: the YAML that a user writes, checked whole before anything is trained.

An error names the key, the file and the line, and suggests the nearest valid name. It runs nothing.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from compress.errors import RecipeError
from compress.finetune import check_teaching
from compress.step import StepConfig, methods, validate
from runtime.manifest import Task
from runtime.suggest import nearest

Location = tuple[int | str, ...]

# What a model store takes for a name.
NAME = r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$"


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateConfig(_Config):
    """What a variant must keep to be published.

    `max_drop` bounds how much worse the metric may get: absolute for a score in [0, 1], relative for a
    perplexity. `min_speedup` bounds the slowest measured workload. None asks nothing.
    """

    max_drop: float | None = Field(default=0.01, ge=0)
    min_speedup: float | None = Field(default=None, gt=0)
    examples: int = Field(default=1000, ge=1)


class Recipe(_Config):
    """One model, the steps applied to it in order, and the gate that the result must pass."""

    model: str = Field(pattern=r"^(zoo|hf|py|onnx):.+")
    data: str | None = None
    name: str | None = Field(default=None, pattern=NAME)
    variant: str | None = Field(default=None, pattern=NAME)
    full: bool = False
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    steps: tuple[SerializeAsAny[StepConfig], ...] = ()
    gate: GateConfig = GateConfig()

    @field_validator("full")
    @classmethod
    def _trains(cls, full: bool, info: ValidationInfo) -> bool:
        if full and not str(info.data.get("model", "zoo:")).startswith("zoo:"):
            raise PydanticCustomError("full", "trains members of the zoo only; leave it out")
        return full

    @property
    def variant_name(self) -> str:
        """The given variant, or one made of the steps: `prune-int8-static`; `fp32` where there is none."""
        return self.variant or "-".join(step.variant for step in self.steps) or "fp32"


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe file. Raises RecipeError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path}: cannot be read ({error}); name a recipe file, such as recipes/digits-int8.yaml"
        ) from None
    return parse_recipe(text, str(path))


def parse_recipe(text: str, name: str = "<recipe>") -> Recipe:
    """Check a recipe's text; `name` stands for the file in messages. Raises RecipeError."""
    tree, content = _read(text, name)
    if not isinstance(content, dict):
        raise RecipeError(f"{name}: a recipe is a mapping with at least the key 'model'")
    steps = content.get("steps")
    steps = [] if steps is None else steps
    if not isinstance(steps, list):
        raise RecipeError(
            f"{_place(name, tree, ('steps',))}: 'steps' is a list of steps, each with a 'method'"
        )
    parsed = [_parse_step(step, index, name, tree) for index, step in enumerate(steps)]
    try:
        recipe = Recipe.model_validate({**content, "steps": parsed})
    except ValidationError as error:
        raise RecipeError(_explain(error, (), name, tree, content, Recipe)) from None
    _check_order(recipe.steps, name, tree)
    return recipe


def _read(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """The recipe's nodes, which know their lines, and its content. Raises RecipeError for what is no YAML."""
    try:
        tree, content = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
        _refuse_repeated(name, tree)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = str(getattr(error, "problem", error)).splitlines()[0]
        raise RecipeError(f"{name}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise RecipeError(f"{name}: not valid YAML: nested too deeply") from None
    return tree, content


def _refuse_repeated(name: str, node: yaml.Node | None) -> None:
    """Of a key that stands twice YAML's readers take the last, without a word. Raises RecipeError."""
    lines: dict[str, int] = {}
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    for key, value in pairs:
        if key.value in lines:
            raise RecipeError(
                f"{name}:{key.start_mark.line + 1}: the key '{key.value}' stands in line "
                f"{lines[key.value]} already; keep one of the two"
            )
        lines[key.value] = key.start_mark.line + 1
        _refuse_repeated(name, value)
    for value in node.value if isinstance(node, yaml.SequenceNode) else ():
        _refuse_repeated(name, value)


def check_task(recipe: Recipe, task: Task) -> None:
    """Refuse steps that a model of this task cannot take. Raises StepError."""
    for step in recipe.steps:
        check_teaching(step, task)
        if check := methods()[step.method].check:
            check(step, task)


def _parse_step(step: Any, index: int, name: str, tree: yaml.Node | None) -> StepConfig:
    where: Location = ("steps", index)
    if not isinstance(step, dict) or "method" not in step:
        raise RecipeError(
            f"{_place(name, tree, where)}: step {index + 1} has no 'method'; {nearest('', methods())}"
        )
    if str(step["method"]) not in methods():
        place = _place(name, tree, (*where, "method"))
        raise RecipeError(
            f"{place}: unknown method '{step['method']}'; {nearest(str(step['method']), methods())}"
        )
    try:
        return validate(step)
    except ValidationError as error:
        config = methods()[step["method"]].config
        raise RecipeError(_explain(error, where, name, tree, step, config)) from None


def _check_order(steps: Sequence[StepConfig], name: str, tree: yaml.Node | None) -> None:
    for index, late in enumerate(steps):
        for early in steps[:index]:
            if reason := _conflict(late, early):
                raise RecipeError(f"{_place(name, tree, ('steps', index))}: {reason}")


def _conflict(late: StepConfig, early: StepConfig) -> str | None:
    """Why `late` cannot come after `early`; None where it can."""
    method, before = methods()[late.method], methods()[early.method]
    if (before.works_on, method.works_on) == ("graph", "torch"):
        return (
            f"'{late.method}' changes the torch model, but '{early.method}' before it works on the exported "
            f"graph; put '{late.method}' first"
        )
    if method.works_on == "torch" and early.closes_weights:
        return f"'{late.method}' changes the torch model, but {early.closes_weights}"
    return method.conflict(late, early) if method.conflict else None


def _explain(
    error: ValidationError, prefix: Location, name: str, tree: yaml.Node | None, content: Any, config: Any
) -> str:
    # A misspelt key is also a missing one: the misspelling is what the user can see.
    first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    location = _in_content(first["loc"], content)
    place, key = _place(name, tree, prefix + location), ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        known = _keys(TypeAdapter(config).json_schema())
        if location[-1] in known:
            return f"{place}: unknown key '{key}' here: it belongs to another setting; leave it out"
        return f"{place}: unknown key '{key}'; {nearest(str(location[-1]), known)}"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        tags = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        asked = context["discriminator"].strip("'")
        place = _place(name, tree, (*prefix, *location, asked))
        return f"{place}: unknown {asked} '{context['tag']}'; {nearest(context['tag'], tags)}"
    if first["type"] == "union_tag_not_found":
        return f"{place}: the key {first['ctx']['discriminator']} is missing"
    if first["type"] == "missing":
        return f"{place}: the key '{key}' is missing"
    return f"{place}: '{key}': {first['msg']}"


def _keys(schema: Any) -> set[str]:
    """Every key that a JSON schema knows, at any depth: what a misspelt one may have meant."""
    if isinstance(schema, list):
        return set().union(*map(_keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(_keys, schema.values()))


def _in_content(location: Location, content: Any) -> Location:
    """pydantic puts a union's tags into its locations: keep the parts that are the user's own keys."""
    kept: list[int | str] = []
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(content, dict) and (part in content or last):
            kept.append(part)
            content = content.get(part)
        elif isinstance(content, list) and isinstance(part, int):
            kept.append(part)
            content = content[part] if part < len(content) else None
    return tuple(kept)


def _place(name: str, node: yaml.Node | None, location: Location) -> str:
    """`file:line` of the key at `location`, or of the nearest thing above it."""
    line = node.start_mark.line if node else 0
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return f"{name}:{line + 1}"


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    return None

"""In which form to answer: OpenAI's `response_format`, and vLLM's `structured_outputs`, which has more.

vLLM's fields are those that it documents (https://docs.vllm.ai/en/latest/features/structured_outputs/) as of
0.12: `guided_regex` and its like, which that has removed, are unknown here, too. So are `structural_tag` and
its ways to set blanks, for JSON is on one line here.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import from_json

from runtime.constraint import Constraint
from runtime.errors import InputError
from service.body import Body
from service.engine import Engine
from service.errors import InvalidRequest


def _parsed(schema: Any) -> Any:
    return from_json(schema) if isinstance(schema, str) else schema


Schema = Annotated[dict[str, Any], BeforeValidator(_parsed, json_schema_input_type=dict[str, Any] | str)]


class JsonSchema(Body):
    """The schema that the answer is to follow; it always is followed, `strict` or not."""

    name: str
    description: str = ""
    json_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool = False


class ResponseFormat(Body):
    """`json_object` is any JSON object, `json_schema` one that follows `json_schema.schema`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' goes with type 'json_schema', and only with it")
        return self

    def constraint(self, engine: Engine) -> Constraint | None:
        """A fresh constraint on one answer. Raises InvalidRequest for a schema that cannot be compiled."""
        if self.type == "text":
            return None
        schema = self.json_schema.json_schema if self.json_schema else None
        return _compiled("response_format", Constraint.json_schema, schema, engine)


class StructuredOutputs(Body):
    """vLLM's: exactly one of these forms."""

    regex: str | None = Field(default=None, description="Rust's syntax, matched from end to end.")
    choice: list[str] | None = Field(default=None, description="The answer is one of these texts.")
    grammar: str | None = Field(default=None, description="Lark's notation, or GBNF.")
    # `json` is a method of pydantic's models.
    schema_: Schema | None = Field(default=None, alias="json", description="JSON under this schema.")
    json_object: bool = Field(default=False, description="Any JSON object.")

    @model_validator(mode="after")
    def _one(self) -> "StructuredOutputs":
        given = (self.regex, self.choice, self.grammar, self.schema_, self.json_object or None)
        if sum(form is not None for form in given) != 1:
            raise ValueError("ask for exactly one of 'regex', 'choice', 'grammar', 'json' and 'json_object'")
        return self

    def constraint(self, engine: Engine) -> Constraint:
        """A fresh constraint on one answer. Raises InvalidRequest for a form that cannot be compiled."""
        if self.regex is not None:
            return _compiled("structured_outputs.regex", Constraint.regex, self.regex, engine)
        if self.choice is not None:
            return _compiled("structured_outputs.choice", Constraint.choice, self.choice, engine)
        if self.grammar is not None:
            return _compiled("structured_outputs.grammar", Constraint.grammar, self.grammar, engine)
        return _compiled("structured_outputs.json", Constraint.json_schema, self.schema_, engine)


def _compiled(field: str, make: Callable[..., Constraint], form: Any, engine: Engine) -> Constraint:
    try:
        return make(form, engine.model.grammar_tokenizer)
    except InputError as error:
        raise InvalidRequest(f"{field}: {error}", field.partition(".")[0]) from None

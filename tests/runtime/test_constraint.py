import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from runtime.constraint import Constraint, grammar_tokenizer
from runtime.errors import InputError

END = 96  # tokenizer_file's last token ends a text


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_file))


@pytest.fixture(scope="module")
def grammars(tokenizer: Tokenizer) -> Any:
    return grammar_tokenizer(tokenizer, [END])


def write(constraint: Constraint, tokenizer: Tokenizer, seed: int, limit: int = 200) -> str | None:
    """What a model without preferences writes under the constraint; None where it never ends."""
    rng, tokens = np.random.default_rng(seed), []
    while not constraint.is_complete:
        logits = rng.normal(size=tokenizer.get_vocab_size()).astype(np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        if token == END:
            break
        constraint.advance(token)
        tokens.append(token)
        if len(tokens) == limit:
            return None
    return tokenizer.decode(tokens)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_matches_the_regular_expression(
    seed: int, tokenizer: Tokenizer, grammars: Any
) -> None:
    pattern = r"[a-f]{2,5}-(yes|no)+!"
    text = write(Constraint.regex(pattern, grammars), tokenizer, seed)
    assert text is not None
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_written_is_valid_under_the_schema(seed: int, tokenizer: Tokenizer, grammars: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer"}},
        "required": ["kind", "age"],
        "additionalProperties": False,
    }
    text = write(Constraint.json_schema(schema, grammars), tokenizer, seed)
    assert text is not None
    answer = json.loads(text)
    assert answer.keys() == {"kind", "age"}
    assert answer["kind"] in ("cat", "dog")
    assert isinstance(answer["age"], int)


@pytest.mark.parametrize("seed", range(5))
def test_no_token_is_spent_on_blanks(seed: int, tokenizer: Tokenizer, grammars: Any) -> None:
    flags = {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cat", "dog"]}, "flags": flags},
        "required": ["kind", "flags"],
        "additionalProperties": False,
    }
    text = write(Constraint.json_schema(schema, grammars), tokenizer, seed)
    assert text is not None
    assert text == json.dumps(json.loads(text))


def test_no_schema_is_any_object(tokenizer: Tokenizer, grammars: Any) -> None:
    constraint = Constraint.json_schema(None, grammars)
    logits = np.zeros(tokenizer.get_vocab_size(), np.float32)
    constraint.mask(logits)
    allowed = {tokenizer.decode([token]) for token in np.flatnonzero(np.isfinite(logits)).tolist()}
    assert "{" in allowed
    assert not allowed & {"[", '"', "1", ""}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_follows_the_grammar(seed: int, tokenizer: Tokenizer, grammars: Any) -> None:
    grammar = 'start: "(" start ")" | /[0-9]/'
    text = write(Constraint.grammar(grammar, grammars), tokenizer, seed)
    assert text is None or re.fullmatch(r"\(*[0-9]\)*", text)


@pytest.mark.parametrize("seed", range(3))
def test_llama_cpps_grammars_are_read_too(seed: int, tokenizer: Tokenizer, grammars: Any) -> None:
    grammar = 'root ::= greeting " " [a-c]{2}\ngreeting ::= "hi" | "yo"'
    text = write(Constraint.grammar(grammar, grammars), tokenizer, seed)
    assert text is not None
    assert re.fullmatch(r"(hi|yo) [a-c]{2}", text)


def test_one_of_the_choices_is_written_as_it_stands(tokenizer: Tokenizer, grammars: Any) -> None:
    choices = ["a.c", "a b|c", "(x)"]
    written = {write(Constraint.choice(choices, grammars), tokenizer, seed) for seed in range(30)}
    assert written == set(choices)


@pytest.mark.parametrize("vocabulary", [90, 200])
def test_a_graph_may_have_more_or_fewer_logits_than_tokens(vocabulary: int, grammars: Any) -> None:
    logits = np.zeros(vocabulary, np.float32)
    Constraint.regex("[ab]", grammars).mask(logits)
    assert np.isfinite(logits).sum() == 2


@pytest.mark.parametrize(
    ("make", "form"),
    [
        (Constraint.regex, "[ab"),
        (Constraint.grammar, "start: missing"),
        (Constraint.grammar, "root ::= ("),
        (Constraint.grammar, "root ::= " + "(" * 2000 + '"a"' + ")" * 2000),
        (Constraint.choice, []),
        (Constraint.choice, ["a", ""]),
        (Constraint.json_schema, {"type": "objec"}),
        (Constraint.json_schema, {"default": object()}),
    ],
)
def test_an_unusable_form_is_refused_in_one_line(make: Any, form: Any, grammars: Any) -> None:
    with pytest.raises(InputError) as error:
        make(form, grammars)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "form", "most"),
    [
        (Constraint.regex, "a" * 4097, "4,096"),
        (Constraint.grammar, "start: " + '"a" ' * 1100, "4,096"),
        (Constraint.choice, ["ab" * 1000] * 9, "16,384"),
    ],
)
def test_a_long_form_is_refused_by_its_length(make: Any, form: Any, most: str, grammars: Any) -> None:
    with pytest.raises(InputError, match=f"characters; send at most {most}"):
        make(form, grammars)


@pytest.mark.parametrize(
    ("make", "form"),
    [
        # Any number of ways to have read the same text.
        (Constraint.grammar, 'start: s\ns: s s s | s s | "x" | ""'),
        # A state for each way to have counted.
        (Constraint.regex, "(a{1,1000}){1,1000}"),
        # No text at all.
        (Constraint.regex, r"[^\x00-\x{10FFFF}]"),
    ],
)
def test_a_form_that_cannot_be_followed_has_failed(
    make: Any, form: str, tokenizer: Tokenizer, grammars: Any
) -> None:
    constraint, letter = make(form, grammars), tokenizer.token_to_id("a" if "a" in form else "x")
    for _ in range(2000):
        logits = np.zeros(tokenizer.get_vocab_size(), np.float32)
        constraint.mask(logits)
        if constraint.has_failed:
            # Something can still be drawn, and the step goes on.
            assert np.isfinite(logits).all()
            break
        constraint.advance(letter)
        if constraint.has_failed:
            break
    assert constraint.has_failed


def test_a_copy_goes_its_own_way(tokenizer: Tokenizer, grammars: Any) -> None:
    form = Constraint.json_schema({"enum": ["a", "b"]}, grammars)
    answers = {write(form.copy(), tokenizer, seed) for seed in range(20)}
    assert answers == {'"a"', '"b"'}


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"v{i}" for i in range(100_000)]},
        {"type": "object", "properties": {f"k{i}": {"type": "integer"} for i in range(20_000)}},
    ],
)
def test_a_form_that_is_too_large_is_refused(grammars: Any, schema: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="output format cannot be used"):
        Constraint.json_schema(schema, grammars)


def test_the_matcher_is_loaded_only_where_a_form_is_asked_for() -> None:
    code = "import runtime.model, runtime.scheduler, sys; sys.exit('llguidance' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Conditions of routing rules: what compiles, what is refused in words, what missing headers mean, what runs safely."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.config_store.expressions import LONGEST, VARIABLES, NoAnswer, compile_expression

CALL: dict[str, Any] = {
    "model": "gpt-4o", "provider": "openai", "request_type": "chat_completion",
    "headers": {"x-team": "red", "user-agent": "curl/8"}, "params": {"beta": "1"},
    "virtual_key_id": "vk-1", "virtual_key_name": "workshop", "team_id": "", "team_name": "", "customer_id": "",
    "customer_name": "", "budget_used": 80.5, "tokens_used": 0.0, "requests_used": 100.0,
}  # fmt: skip


def holds(text: str, **changed: Any) -> bool:
    return compile_expression(text).holds(CALL | changed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("true", True),
        ('model == "gpt-4o"', True),
        ('model.startsWith("gpt-") && !model.endsWith("-mini")', True),
        ('model.matches("^gpt-[0-9]")', True),
        ('model in ["a", "b"]', False),
        ("budget_used > 80", True),
        ("budget_used > 80.5", False),
        ("requests_used == 100", True),
        ('headers["x-team"] == "red"', True),
        ('headers["x-absent"] == "red"', False),
        ('headers["x-absent"] != "red"', True),
        ('headers["x-absent"] == ""', True),
        ('"x-absent" in headers', False),
        ('"x-team" in headers && headers["x-team"] == "red"', True),
        ("has(headers.absent)", False),
        ('!(headers["a"] == "1" || headers["b"] == "2")', True),
        ('params["beta"] == "1" && params.gamma == ""', True),
        ('headers.exists(name, name.startsWith("x-"))', True),
        ('headers.exists(name, name == "x-absent") || headers["x-absent"] == ""', True),
        ("size(virtual_key_name) > 3 && team_id == ''", True),
    ],
)
def test_conditions(text: str, expected: bool) -> None:
    assert holds(text) is expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model ==", "cannot be read: 1:9: Syntax error"),
        ("modle == 'x'", "did you mean 'model'?"),
        ("nonsense == 'x'", "known here: model, provider"),
        ("bugdet_used > 80", "did you mean 'budget_used'?"),
        ("model.lower() == 'x'", "the function 'lower', which there is not"),
        ("startWith(model, 'x')", "did you mean 'startsWith'?"),
        ("model", "must be true or false, not str"),
        ("budget_used", "must be true or false, not float"),
        ('headers["X-Team"] == "red"', "write headers['x-team']"),
        ("x.exists(y, y == 1)", "uses 'x'"),
        ("true || " * 1000 + "true", f"{LONGEST} are the most"),
        ("(" * 1000 + "1" + ")" * 1000, "cannot be read"),
    ],
)
def test_what_cannot_be_a_condition_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError) as fault:
        compile_expression(text)
    assert words in str(fault.value)


def test_every_variable_can_be_used() -> None:
    for name in VARIABLES:
        compile_expression(f"size({name}) >= 0" if name in ("headers", "params") else f"{name} == {name}")


@pytest.mark.parametrize("text", ["model > 5", "1 / size(team_id) == 1", "int(model) == 1"])
def test_what_has_no_answer_is_told_without_the_values_of_the_call(text: str) -> None:
    with pytest.raises(NoAnswer) as fault:
        compile_expression(text).holds(CALL | {"model": "secret-model"})
    assert "secret" not in str(fault.value)


def test_a_value_that_is_not_known_is_no_answer() -> None:
    values = {name: value for name, value in CALL.items() if name != "budget_used"}
    with pytest.raises(NoAnswer, match="budget_used is not known"):
        compile_expression("budget_used > 80").holds(values)
    assert compile_expression('model == "gpt-4o" || budget_used > 80').holds(values), "what decides without it decides"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('headers["x-a"] == "1" && headers.b == "2"', {"x-a", "b"}),
        ('"x-a" in headers', {"x-a"}),
        ("'x-a' in headers && model == \"headers['x-b']\"", {"x-a"}),
        ("size(headers) > 2", None),
        ("headers[model] == ''", None),
        ('headers["a\\"b"] == ""', None),
        ('headers.exists(h, h == "x")', None),
        ("model == 'x'", set()),
    ],
)
def test_which_headers_it_asks_for(text: str, expected: set[str] | None) -> None:
    assert compile_expression(text).headers == expected


names = st.text(string.ascii_lowercase + "-", min_size=1, max_size=8)


@given(st.dictionaries(names, st.text(max_size=10), max_size=5), names, st.text(max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_header_reads_as_in_a_dictionary_with_empty_text_for_what_is_missing(
    headers: dict[str, str], name: str, value: str
) -> None:
    text = "headers[" + repr_cel(name) + "] == " + repr_cel(value)
    assert holds(text, headers=headers) is (headers.get(name, "") == value)
    assert holds(f"{repr_cel(name)} in headers", headers=headers) is (name in headers)


def repr_cel(text: str) -> str:
    """A CEL string literal, every character that is not plain as an escape."""
    plain = string.ascii_letters + string.digits + "- "
    return '"' + "".join(c if c in plain else f"\\U{ord(c):08x}" for c in text) + '"'


@given(st.text(alphabet="model\"headers[]()&|!=<>.+-*/0123456789 in,?:{}'", max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_does_more_than_raise_the_promised_errors(text: str) -> None:
    try:
        made = compile_expression(text)
    except ValueError:
        return
    try:
        assert made.holds(CALL) in (True, False)
    except NoAnswer:
        pass

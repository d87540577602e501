"""The place of a fault in a JSON text, against a parser that reports where a marker stands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.config_store.json_place import fault_place, line_and_column

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1, "a": 2}', (1, 10)),
        ('{\n  "a": {"b": 1},\n  "a": 2\n}', (3, 3)),
        ('{"a": {"x": 1}, "b": {"x": 1, "y": 2, "x": 3}}', (1, 39)),
        ('{"a": NaN}', (1, 7)),
        ('{"a": [1,\n -Infinity]}', (2, 2)),
        ('{"a": "NaN", "b": ["a", "a", "b"], "c": {"a": 1}}', None),
        ('{"a\\"b": 1, "a": "x: {\\"a\\": 1}", "c": "a"}', None),
        ("", None),
    ],
)
def test_places(text: str, place: tuple[int, int] | None) -> None:
    assert fault_place(text) == place


@given(VALUES, st.sampled_from([None, 1, 3]))
def test_good_documents_have_none(value: object, indent: int | None) -> None:
    assert fault_place(json.dumps(value, indent=indent)) is None
    assert fault_place(json.dumps(value, indent=indent, ensure_ascii=False)) is None


@given(VALUES, st.sampled_from([None, 2]))
def test_the_place_is_that_of_the_word(value: object, indent: int | None) -> None:
    """A word that is no JSON at all stands where NaN would; the standard library says where that is."""
    text = json.dumps({"before": value, "here": float("nan"), "after": value}, indent=indent)
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads(text.replace('"here": NaN', '"here": ???'))
    assert fault_place(text) == (caught.value.lineno, caught.value.colno)


def test_bytes_are_counted_from_one() -> None:
    assert [line_and_column(b"ab\ncd", at) for at in (0, 1, 3, 4)] == [(1, 1), (1, 2), (2, 1), (2, 2)]

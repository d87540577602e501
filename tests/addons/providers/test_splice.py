"""Edits change exactly one value of a JSON text, checked against orjson's idea of the object."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers import splice
from addons.providers.dialect import Edit

KEYS = st.sampled_from(["max_tokens", "a", "b", "stream_options", "include_usage", 'q"', "ü", "n\n"])
SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8) | st.floats(-1e6, 1e6)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
SPACES = st.sampled_from(["", " ", "\n", "\t \r\n"])


def written(value: object, draw: st.DrawFn) -> str:
    """The value as JSON with odd but legal spacing and escapes."""
    space = draw(SPACES)
    if isinstance(value, dict):
        members = (f"{space}{quoted(key, draw)}{space}:{space}{written(item, draw)}{space}" for key, item in value.items())
        return "{" + (",".join(members) or space) + "}"
    if isinstance(value, list):
        return "[" + (",".join(f"{space}{written(item, draw)}{space}" for item in value) or space) + "]"
    return quoted(value, draw) if isinstance(value, str) else json.dumps(value)


def quoted(text: str, draw: st.DrawFn) -> str:
    if text.isascii() and text.isalnum() and draw(st.booleans()):
        return '"' + "".join(f"\\u{ord(character):04x}" for character in text) + '"'
    return json.dumps(text, ensure_ascii=draw(st.booleans()))


@st.composite
def texts(draw: st.DrawFn) -> tuple[dict[str, object], bytes]:
    value = draw(OBJECTS)
    return value, (draw(SPACES) + written(value, draw) + draw(SPACES)).encode()


def changed(value: dict[str, object], path: tuple[str, ...], new: object) -> dict[str, object]:
    """The reference: the same edit on the parsed object."""
    result = dict(value)
    if len(path) == 1:
        result[path[0]] = new
        return result
    inner = result.get(path[0])
    result[path[0]] = changed(inner if isinstance(inner, dict) else {}, path[1:], new)
    return result


@settings(max_examples=200, deadline=None)
@given(texts(), st.lists(KEYS, min_size=1, max_size=3), st.integers(0, 10**6))
def test_result_is_what_the_edited_object_would_be(text: tuple[dict[str, object], bytes], path: list[str], new: int) -> None:
    value, body = text

    edited = splice.apply(body, [Edit(tuple(path), str(new).encode())])

    assert orjson.loads(edited) == changed(orjson.loads(body), tuple(path), new)
    assert orjson.loads(body) == orjson.loads(orjson.dumps(value))


@settings(max_examples=200, deadline=None)
@given(texts(), st.lists(KEYS, min_size=1, max_size=3))
def test_all_other_bytes_are_unchanged(text: tuple[dict[str, object], bytes], path: list[str]) -> None:
    """Around the edit the text is the old one: a common beginning and a common end account for all of it."""
    _, body = text
    marker = b"987654321987654321"

    edited = splice.apply(body, [Edit(tuple(path), marker)])

    before, _, after = edited.partition(marker)
    kept = 0
    while kept < len(before) and kept < len(body) and before[kept] == body[kept]:
        kept += 1
    added = before[kept:]
    tail = after.lstrip(b"},") if not body.endswith(after) else after
    assert body.endswith(tail)
    assert all(character in b'{}":,' or chr(character).isprintable() or character >= 128 for character in added)
    # What was added is at most the keys on the way; what was removed is one old value.
    removed = body[kept : len(body) - len(tail)]
    assert len(added) <= sum(len(orjson.dumps(key)) + 2 for key in path)
    if removed and not added:
        orjson.loads(removed)


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b'{"max\\u005ftokens" : 100 ,"x":1}', ("max_tokens",), b'{"max\\u005ftokens" : 7 ,"x":1}'),
        (b"{}", ("max_tokens",), b'{"max_tokens":7}'),
        (b" {\n} ", ("a", "b"), b' {"a":{"b":7}\n} '),
        (b'{"a":{}}', ("a", "b"), b'{"a":{"b":7}}'),
        (b'{"a":{"c":[1, 2]}}', ("a", "b"), b'{"a":{"b":7,"c":[1, 2]}}'),
        (b'{"a":null}', ("a", "b"), b'{"a":{"b":7}}'),
        (b'{"m":[{"max_tokens":1}],"max_tokens":2}', ("max_tokens",), b'{"m":[{"max_tokens":1}],"max_tokens":7}'),
        (b'{"s":"\\"max_tokens\\":5","max_tokens":2}', ("max_tokens",), b'{"s":"\\"max_tokens\\":5","max_tokens":7}'),
        (b'{"a":1,"a":2}', ("a",), b'{"a":7,"a":7}'),
        (b'{"s":"}]{[\\\\","a":1}', ("a",), b'{"s":"}]{[\\\\","a":7}'),
    ],
)
def test_by_hand(body: bytes, path: tuple[str, ...], expected: bytes) -> None:
    assert splice.apply(body, [Edit(path, b"7")]) == expected


def test_several_edits_at_once() -> None:
    edits = [Edit(("max_tokens",), b"5"), Edit(("stream_options", "include_usage"), b"true"), Edit(("model",), b'"m"')]

    edited = splice.apply(b'{"model":"x","max_tokens":9,"stream_options":{"o":1}}', edits)

    assert edited == b'{"model":"m","max_tokens":5,"stream_options":{"include_usage":true,"o":1}}'


@pytest.mark.parametrize("depth", [5, 13, 14, 40, 900])
def test_deep_values_are_stepped_over(depth: int) -> None:
    deep = b'{"k":[' * depth + b'"]}"' + b"]}" * depth

    assert splice.apply(b'{"d":' + deep + b',"n":1}', [Edit(("n",), b"2")]) == b'{"d":' + deep + b',"n":2}'


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"5", b'{"a"', b'{"a":', b'{"a":}', b'{"a":1 "b":2}', b'{"a":[', b'{"a":"x', b'{,"a"}']
)
def test_what_is_no_object_raises_malformed(body: bytes) -> None:
    with pytest.raises(splice.Malformed):
        splice.apply(body, [Edit(("a", "b"), b"1"), Edit(("c",), b"1")])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_raise_nothing_else(body: bytes) -> None:
    for text in (body, b'{"a":' + body, b'{"a' + body + b'":1}'):
        try:
            splice.apply(text, [Edit(("a", "b"), b"1")])
        except splice.Malformed:
            pass


def test_hostile_nesting_is_linear() -> None:
    """A hundred thousand open brackets end in Malformed at once, not in a crash or a minute of searching."""
    with pytest.raises(splice.Malformed):
        splice.apply(b'{"a":' + b"[" * 100_000, [Edit(("a",), b"1")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"usage":null}', b"{}"),
        (b'{"usage":null,"a":1}', b'{"a":1}'),
        (b'{"a":1, "usage": null}', b'{"a":1}'),
        (b'{"a":1, "usage": null ,"b":2}', b'{"a":1 ,"b":2}'),
        (b'{"a":{"usage":null}}', b'{"a":{"usage":null}}'),
    ],
)
def test_cut_member(text: bytes, expected: bytes) -> None:
    assert splice.cut_member(text, "usage") == expected


@pytest.mark.parametrize(
    ("text", "hides"),
    [
        (b'{"a":"\\u003c\\u003e\\u0026\\u0027\\u001b"}', False),
        (b'{"mod\\u0065l":1}', True),
        (b'{"max\\u005Ftokens":1}', True),
        (b'{"ttl":"\\u0031h"}', True),
        (b'{"a":"\\u0022"}', True),
        (b'{"a":"plain"}', False),
    ],
)
def test_escapes_that_could_hide_a_key(text: bytes, hides: bool) -> None:
    assert splice.may_hide_keys(text) is hides

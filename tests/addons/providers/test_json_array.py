"""The array parser gives the elements that a JSON parser gives, however the text is cut."""

import json

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers.json_array import JsonArrayParser

TEXT = st.text(alphabet=st.sampled_from('ab"\\[]{},:é\n'), max_size=12)
VALUES = st.recursive(
    TEXT | st.integers(-(2**50), 2**50) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ARRAYS = st.lists(st.dictionaries(TEXT, VALUES, max_size=3), max_size=5)


def elements(data: bytes, cuts: list[int], parser: JsonArrayParser | None = None) -> list[bytes]:
    parser = parser or JsonArrayParser()
    points = sorted(min(cut, len(data)) for cut in cuts)
    return [e for a, b in zip([0, *points], [*points, len(data)], strict=True) for e in parser.feed(data[a:b])]


@settings(max_examples=120, deadline=None)
@given(ARRAYS, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 300), max_size=8))
def test_elements(array: list[dict[str, object]], ascii_only: bool, indent: int | None, cuts: list[int]) -> None:
    data = json.dumps(array, ensure_ascii=ascii_only, indent=indent).encode()

    assert [orjson.loads(e) for e in elements(data, cuts)] == orjson.loads(data)
    assert elements(data, list(range(len(data)))) == elements(data, [])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=5))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    for element in elements(data, cuts):
        assert element in data


def test_a_single_object_is_one_element() -> None:
    assert elements(b' {"error": {"code": 1}}\n', [5]) == [b'{"error": {"code": 1}}']


def test_too_long_an_element_stops_the_parsing() -> None:
    parser = JsonArrayParser(max_element_bytes=100)

    assert elements(b'[{"a":1},{"b":"' + b"x" * 500, [20, 60, 200], parser) == [b'{"a":1}']
    assert parser.overflow
    assert parser.feed(b'"}]') == []


def test_knows_when_an_error_can_be_put_behind() -> None:
    parser = JsonArrayParser()
    states = [parser.between_elements]
    for piece in (b"[", b'{"a"', b":1}", b"\n,", b'{"b":2}', b"]"):
        parser.feed(piece)
        states.append(parser.between_elements)

    assert states == [False, True, False, True, True, True, False]

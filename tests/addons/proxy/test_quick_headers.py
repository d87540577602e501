"""Our shorter look at headers answers what mitmproxy's own answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.coretypes.multidict import MultiDict
from mitmproxy.http import Headers

from addons.proxy import quick_headers

NAMES = st.sampled_from([b"host", b"Host", b"HOST", b"x-a", b"X-A", b"set-cookie", b"", b"\xff\xfe", "ü".encode()])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=8).map(tuple)
WANTED = st.one_of(NAMES, NAMES.map(lambda name: name.decode("utf-8", "surrogateescape")))


def stock_get_all(headers: Headers, name: str | bytes) -> list[str]:
    """What mitmproxy's own code does, whatever has been installed in its place."""
    key = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
    return [value.decode("utf-8", "surrogateescape") for value in MultiDict.get_all(headers, key)]


@given(FIELDS, WANTED)
def test_same_answers(fields: tuple[tuple[bytes, bytes], ...], name: str | bytes) -> None:
    headers = Headers(fields)
    values = stock_get_all(headers, name)
    assert quick_headers.get_all(headers, name) == values
    assert quick_headers.contains(headers, name) == bool(values)
    assert quick_headers.get(headers, name, "none") == (b", ".join(v.encode("utf-8", "surrogateescape") for v in values).decode(
        "utf-8", "surrogateescape") if values else "none")  # fmt: skip


@pytest.mark.parametrize("name", [None, 1, object()])
def test_other_types(name: object) -> None:
    """As with mitmproxy: not there, and a mistake to ask for."""
    headers = Headers([(b"a", b"1")])
    assert not quick_headers.contains(headers, name)
    with pytest.raises(TypeError):
        quick_headers.get(headers, name)  # type: ignore[arg-type]

"""One-pass header changes."""

from mitmproxy import http

from addons.headers import append, rewrite

FIELDS = ((b"Host", b"a"), (b"X-Key", b"1"), (b"accept", b"*/*"), (b"x-key", b"2"))


def test_values_change_in_place_and_doubles_go() -> None:
    headers = http.Headers(FIELDS)
    rewrite(headers, {b"x-key": b"new"})
    assert headers.fields == ((b"Host", b"a"), (b"X-Key", b"new"), (b"accept", b"*/*"))


def test_none_removes_every_one_and_absent_names_are_added() -> None:
    headers = http.Headers(FIELDS)
    rewrite(headers, {b"x-key": None, b"authorization": b"Bearer z", b"absent": None})
    assert headers.fields == ((b"Host", b"a"), (b"accept", b"*/*"), (b"authorization", b"Bearer z"))


def test_append() -> None:
    headers = http.Headers(FIELDS[:1])
    append(headers, (b"x-a", b"1"), (b"x-b", b"2"))
    assert (headers["x-a"], headers["x-b"], headers["host"]) == ("1", "2", "a")

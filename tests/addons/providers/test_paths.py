"""Paths are brought to the form in which the most forgiving server would read them."""

import pytest

from addons.providers import paths
from addons.providers.registry import FAMILIES, PathKind, endpoint


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/?x=/y", "/v1/chat/completions"),
        ("//v1///chat/./completions", "/v1/chat/completions"),
        ("/a/../v1/b/%2e%2E/chat", "/v1/chat"),
        ("/../../v1", "/v1"),
        ("/v1%2Fchat%2fcompletions", "/v1/chat/completions"),
        ("/v1%252Fchat", "/v1/chat"),
        ("/v1%25252Fchat", "/v1/chat"),
        ("/v1\\chat", "/v1/chat"),
        ("/v1;a=b/chat;c", "/v1/chat"),
        ("/v1/ch%00at\t", "/v1/chat"),
        ("/V1/Models/GPT", "/V1/Models/GPT"),
        ("/v1/chat%3fx=1", "/v1/chat"),
        ("", "/"),
        ("/%zz", "/%zz"),
    ],
)
def test_canonical(path: str, canonical: str) -> None:
    assert paths.canonical(path) == canonical


@pytest.mark.parametrize("path", ["/", "/v1/moderations", "/v1/moderations/", "/v1/a:b", "/v1/a.b@c?x=%20", "/v1/.hidden"[:4]])
def test_plain(path: str) -> None:
    assert paths.is_plain(path)


@pytest.mark.parametrize(
    "path",
    ["", "v1", "//v1", "/v1//a", "/v1/./a", "/v1/../a", "/v1/%6d", "/v1/a;b", "/v1/a b", "/v1\\a", "/v1/ä", "/v1/a\n", "/v1/a//"],
)
def test_not_plain(path: str) -> None:
    assert not paths.is_plain(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%6doderations",
        "/v1//moderations",
        "/v1/x/../moderations",
        "/v1/moderations;x",
        "/v1/./moderations",
        "/v1/moderations%20",
    ],
)
def test_a_free_path_in_disguise_is_unknown(path: str) -> None:
    """Servers may read it as something else than we do, so that it is not let through as free."""
    assert endpoint(FAMILIES["openai"], "POST", "/v1/moderations").kind is PathKind.FREE
    assert endpoint(FAMILIES["openai"], "POST", path).kind is PathKind.UNKNOWN
    assert endpoint(FAMILIES["chatgpt"], "POST", path).kind is PathKind.UNKNOWN

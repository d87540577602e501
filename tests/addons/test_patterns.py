"""Model lists: names stand for themselves, `*` for any run of characters, and nothing else is special."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.patterns import matches_any


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ((), "gpt-4o", False),
        (("*",), "gpt-4o", True),
        (("*",), "", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o",), "GPT-4O", False),
        (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "gpt-", True),
        (("gpt-*",), "chatgpt-4o", False),
        (("*-mini",), "gpt-4o-mini", True),
        (("*-mini",), "gpt-4o-mini-high", False),
        (("gpt-*-mini",), "gpt-4o-mini", True),
        (("claude-*", "gpt-4o"), "gpt-4o", True),
        (("gpt-4.1",), "gpt-4x1", False),
        (("meta/*",), "meta/llama/3", True),
        (("",), "gpt-4o", False),
        (("[g]*",), "gpt-4o", False),  # brackets are letters
        (("[g]*",), "[g]pt", True),
        (("ft:gpt[1]*",), "ft:gpt[1]x", True),
    ],
)
def test_lists(patterns: tuple[str, ...], name: str, expected: bool) -> None:
    assert matches_any(patterns, name) is expected


def test_a_question_mark_is_a_letter() -> None:
    """An allow list must not allow more than it says."""
    assert not matches_any(("gpt-4?*",), "gpt-4o")


@given(st.text(alphabet="ab[]!^$.+()\\{}|- ", max_size=8), st.text(alphabet="ab[]!^$.+()\\{}|- ", max_size=8), st.text(max_size=8))
def test_only_the_star_is_special(head: str, tail: str, middle: str) -> None:
    """Whatever stands around a star must stand in the name as it is."""
    pattern = (f"{head}*{tail}",)
    assert matches_any(pattern, head + middle + tail)
    name = middle
    assert matches_any(pattern, name) is (
        len(name) >= len(head) + len(tail) and name.startswith(head) and name.endswith(tail)
    )  # fmt: skip

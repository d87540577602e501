"""docs/bifrost-compat.md is true: it has every route of the API, and those it says are absent are absent."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from addons.console.app import API_ROUTES
from addons.console.routes import methods_of

PAGE = Path(__file__).parents[3] / "docs" / "bifrost-compat.md"
ROW = re.compile(r"^\| `(?P<method>[A-Z]+) (?P<path>/\S+)` \| (?P<here>\w+) \|(?P<words>.*)\|$", re.MULTILINE)
ROWS = [(found["method"], found["path"], found["here"], found["words"].strip()) for found in ROW.finditer(PAGE.read_text())]
HAS = {(name.upper(), route.path) for route in API_ROUTES for name in methods_of(route.handler)}


@pytest.fixture
def engine() -> str:
    """Which routes there are does not depend on the store."""
    return "sqlite"


def test_every_route_is_on_the_page_once() -> None:
    told = Counter((method, path) for method, path, _, _ in ROWS)
    assert HAS - set(told) == set(), "not on the page"
    assert [row for row, times in told.items() if times > 1] == []
    assert len(ROWS) > 100


def test_what_it_promises_exists() -> None:
    assert {here for _, _, here, _ in ROWS} == {"yes", "differs", "ours", "no"}
    assert {(method, path) for method, path, here, _ in ROWS if here != "no"} - HAS == set()
    assert {(method, path) for method, path, here, _ in ROWS if here == "no"} & HAS == set()


def test_a_difference_is_said_in_words() -> None:
    assert [(method, path) for method, path, here, words in ROWS if here == "differs" and not words] == []


async def test_what_it_says_is_absent_is_an_error_object(console: Any) -> None:
    for method, path, here, _ in ROWS:
        if here == "no":
            answer = await console.client.request(method, re.sub(r"\{[a-z_]+\}", "x", path))
            assert answer.status_code in (404, 405), (method, path)
            body = answer.json()
            assert set(body) == {"is_bifrost_error", "status_code", "error", "extra_fields"} and body["error"]["message"]

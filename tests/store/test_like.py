"""Parts of texts are found literally, in any case of ASCII letters, by both engines alike."""

import string

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.database import Database
from store.like import LONGEST, contains, pattern

TEXTS = st.text(st.sampled_from(string.ascii_letters + "%_\\'?äÄßẞIıİ€😀 "), max_size=12)


def _lower(text: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS, min_size=1, max_size=8), TEXTS)
def test_it_finds_what_a_plain_search_finds(any_database: Database, texts: list[str], part: str) -> None:
    with any_database.write() as connection:
        connection.execute("DELETE FROM config_meta")
        connection.executemany(
            "INSERT INTO config_meta (key, value) VALUES (?, ?)", [(f"{number}", text) for number, text in enumerate(texts)]
        )
        condition = contains(connection.engine, "value")
        rows = connection.execute(f"SELECT key FROM config_meta WHERE {condition} ORDER BY key", (pattern(part),))
    assert [row[0] for row in rows] == [f"{number}" for number, text in enumerate(texts) if _lower(part) in _lower(text)]


@pytest.mark.parametrize(("part", "found"), [("x" * LONGEST, True), ("x" * (LONGEST + 1), False), ("\0" * 9, False)])
def test_long_and_odd_parts(any_database: Database, part: str, found: bool) -> None:
    with any_database.write() as connection:
        connection.execute("INSERT INTO config_meta (key, value) VALUES ('a', ?)", ("x" * LONGEST,))
        sql = f"SELECT 1 FROM config_meta WHERE {contains(connection.engine, 'value')}"
        assert bool(connection.execute(sql, (pattern(part),))) is found
        assert connection.execute(sql, (pattern("x" * 70_000),)) == []

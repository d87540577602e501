"""Snapshots and aliases: which names are one model, and which are not."""

import pytest

from store.reconcile.names import Names, family, is_dated


@pytest.mark.parametrize(
    "name,of",
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("claude-sonnet-4@20250514", "claude-sonnet-4"),
        ("mistral-large-latest", "mistral-large"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o-mini", "gpt-4o-mini"),
    ],
)
def test_families(name: str, of: str) -> None:
    assert family(name) == of


def test_only_dates_make_a_snapshot() -> None:
    assert is_dated("gpt-4o-2024-08-06") and is_dated("claude-sonnet-4-20250514")
    assert not is_dated("gpt-4o") and not is_dated("mistral-large-latest")


def test_the_model_that_answered_comes_first() -> None:
    names = Names(["gpt-4o", "gpt-4o-2024-08-06"])
    assert names.ours("gpt-4o-2024-08-06", "gpt-4o") == "gpt-4o-2024-08-06"
    assert names.ours("", "gpt-4o") == "gpt-4o"
    assert names.ours("gpt-4o-2024-11-20", "gpt-4o") == "gpt-4o"


def test_an_alias_finds_its_only_snapshot() -> None:
    names = Names(["gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18"])
    assert names.ours("", "gpt-4o") == "gpt-4o-2024-08-06"
    other = Names(["claude-haiku-4-5"])
    assert other.ours("claude-haiku-4-5-20251001", "haiku") == "claude-haiku-4-5"


def test_what_is_ambiguous_or_another_snapshot_stays_apart() -> None:
    names = Names(["gpt-4o-2024-08-06", "gpt-4o-2024-11-20"])
    assert names.ours("", "gpt-4o") == "gpt-4o"
    assert names.ours("gpt-4o-2024-05-13", "gpt-4o-2024-05-13") == "gpt-4o-2024-05-13"
    alone = Names(["gpt-4o-2024-08-06"])
    assert alone.ours("gpt-4o-2024-11-20", "gpt-4o-2024-11-20") == "gpt-4o-2024-11-20", "another snapshot has its own price"
    assert names.ours("", "") == "(unknown model)"


def test_costs_take_the_names_of_the_usage() -> None:
    names = Names(["claude-haiku-4-5-20251001"], ["claude-haiku-4-5", "claude-opus-5"])
    assert names.theirs("claude-haiku-4-5") == "claude-haiku-4-5-20251001"
    assert names.theirs("claude-opus-5") == "claude-opus-5"
    assert names.ours("claude-haiku-4-5-20251001", "x") == "claude-haiku-4-5-20251001"
    assert names.theirs("GPT-9") == "GPT-9", "a name that is not listed is itself"

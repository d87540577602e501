"""Anthropic's shapes, against figures read off the fixture files by hand."""

from typing import Any

import pytest

from store.errors import UserError
from store.reconcile.anthropic import console_model
from store.reconcile.export import read_part
from store.reconcile.reading import Page, parse_documents, read_documents
from store.reconcile.types import Source, Tokens
from tests.store.reconcile.exports_here import FOLDER, NOV_20, NOV_21, NOV_22, NOV_23


def part(name: str) -> Any:
    (document,) = read_documents(FOLDER / name)
    return read_part(document)


def test_a_page_of_usage() -> None:
    read = part("anthropic_usage.json")
    assert (read.provider, read.source) == ("anthropic", Source.USAGE)
    assert (read.has_more, read.next_page) == (True, "page_MjAyNS0wNS0xNFQwMDowMDowMFo=")
    assert read.spans == ((NOV_20, NOV_21), (NOV_21, NOV_22))
    plain, batch = read.usage
    # 1,500 + 1,000 + 500 + 200 of input in all; requests are not told.
    assert (plain.model, plain.tokens, plain.requests) == ("claude-sonnet-4-20250514", Tokens(3200, 200, 1500, 500), None)
    assert (plain.web_searches, plain.tier, batch.tier, batch.tokens.input) == (10, "", "batch", 90)
    assert ("service_tier", "standard") in plain.group


def test_a_page_of_costs_is_in_cents() -> None:
    read = part("anthropic_costs.json")
    assert [(row.model, row.token_class, row.tier, row.cost_nanos) for row in read.costs] == [
        ("claude-sonnet-4-20250514", "input", "", 1_237_891_200),
        ("claude-sonnet-4-20250514", "output", "batch", 5_000_000),
        ("", "", "", 100_000_000),
    ]
    assert read.costs[2].label == "Web Search Usage"
    assert read.costs[0].rounding_nanos == 0


def test_the_console_s_usage_table() -> None:
    read = part("console_usage.csv")
    first, second = read.usage
    assert first.tokens == Tokens(46981 + 15969 + 100 + 7, 7, 16069, 16932)
    assert (first.model, first.web_searches, first.tier, second.tier) == ("claude-haiku-4-5-20251001", 3, "", "batch")
    assert read.spans == ((NOV_20, NOV_23),), "the day between had no usage"


def test_the_console_s_cost_table_is_rounded_to_the_cent() -> None:
    read = part("console_costs.csv")
    assert [(row.model, row.token_class, row.cost_nanos, row.rounding_nanos) for row in read.costs] == [
        ("claude-haiku-4-5", "input", 50_000_000, 5_000_000),
        ("claude-haiku-4-5", "output", 80_000_000, 5_000_000),
    ]
    assert read.spans == ((NOV_20, NOV_21),)


@pytest.mark.parametrize("shown,name", [("Claude Haiku 4.5", "claude-haiku-4-5"), ("claude-opus-5", "claude-opus-5")])
def test_names_of_the_console(shown: str, name: str) -> None:
    assert console_model(shown) == name


def bucket(**fields: Any) -> dict[str, Any]:
    return {"starting_at": "2026-11-20T00:00:00Z", "ending_at": "2026-11-21T00:00:00Z", "results": []} | fields


def result(**fields: Any) -> dict[str, Any]:
    return {"uncached_input_tokens": 1, "output_tokens": 1, "model": "claude-opus-5"} | fields


def cost(**fields: Any) -> dict[str, Any]:
    return {"amount": "5", "currency": "USD", "model": "claude-opus-5", "description": "d", "cost_type": "tokens"} | fields


@pytest.mark.parametrize(
    "entry,said",
    [
        (bucket(starting_at="2026-11-20"), "not a time such as 2026-11-20T00:00:00Z"),
        (bucket(starting_at=None), "starting_at is missing, not a time"),
        (bucket(starting_at=5), "starting_at is 5, not a text"),
        (bucket(ending_at="2026-11-19T00:00:00Z"), "before it begins"),
        (bucket(ending_at="2026-11-22T00:00:00Z"), "ask again with bucket_width=1d"),
        (bucket(results={}), "results is missing"),
        (bucket(results=[{"input_tokens": 4}]), "holds neither uncached_input_tokens nor an amount"),
        (bucket(results=[result(model=None)]), "ask again with group_by[]=model"),
        (bucket(results=[result(output_tokens="x")]), "bucket 1, result 1: output_tokens is 'x'"),
        (bucket(results=[result(output_tokens=None)]), "output_tokens is missing"),
        (bucket(results=[result(cache_creation=[])]), "cache_creation: expected an object"),
        (bucket(results=[cost(model=None, description=None)]), "ask again with group_by[]=description"),
        (bucket(results=[cost(amount="NaN")]), "amount is 'NaN', not an amount of money"),
        (bucket(results=[cost(amount="1_0")]), "amount is '1_0'"),
        (bucket(results=[cost(currency="EUR")]), "currency is 'EUR', not USD"),
        (bucket(results=[cost(), result()]), "mixes usage and costs"),
    ],
)
def test_bad_pages_are_one_sentence_with_the_place(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as fault:
        read_part(Page("p.json", {"data": [entry], "has_more": False}))
    assert said in str(fault.value)
    assert str(fault.value).startswith("p.json") and "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "text,said",
    [
        ("usage_date_utc,model,tokens\n2026-11-20,a,1\n", "has neither the columns of the Console's usage export"),
        ("usage_date_utc,model,cost_usd\n2026-13-20,a,1\n", "line 2: usage_date_utc is '2026-13-20', not a day"),
        ("usage_date_utc,model,cost_usd\n1969-12-31,a,1\n", "before 1970"),
        ("usage_date_utc,model,cost_usd\n2026-11-20,a,\n", "cost_usd is missing"),
        ("usage_date_utc,model,cost_usd\n2026-11-20,,1\n", "group_by[]=description"),
        (
            "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens\n2026-11-20,a,1,1.5\n",
            "usage_output_tokens is '1.5'",
        ),
    ],
)
def test_bad_tables(text: str, said: str) -> None:
    (document,) = parse_documents(text, "t.csv")
    with pytest.raises(UserError) as fault:
        read_part(document)
    assert said in str(fault.value) and str(fault.value).startswith("t.csv")

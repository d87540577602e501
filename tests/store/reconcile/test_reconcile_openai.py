"""OpenAI's shapes, against figures read off the fixture files by hand."""

from typing import Any

import pytest

from store.errors import UserError
from store.reconcile.export import read_part
from store.reconcile.openai import line_item
from store.reconcile.reading import Page, parse_documents, read_documents
from store.reconcile.types import Source, Tokens
from tests.store.reconcile.exports_here import FOLDER, NOV_20, NOV_21, NOV_22


def part(name: str) -> Any:
    (document,) = read_documents(FOLDER / name)
    return read_part(document)


def test_a_page_of_completions() -> None:
    read = part("openai_usage.json")
    assert (read.provider, read.source, read.has_more) == ("openai", Source.USAGE, False)
    assert read.spans == ((NOV_20, NOV_21), (NOV_21, NOV_22)), "a day without calls was asked about too"
    plain, batch, flex = read.usage
    assert (plain.model, plain.tokens, plain.requests, plain.tier) == ("gpt-4o-2024-08-06", Tokens(1000, 800, 50, 500), 5, "")
    assert (batch.tokens, batch.tier, batch.requests) == (Tokens(300, 0, None, 30), "batch", 2)
    assert (flex.model, flex.tier) == ("gpt-5-mini-2025-08-07", "flex")
    assert plain.group == (("project_id", "proj_one"), ("batch", "False"), ("service_tier", "default"))
    assert (plain.start_ms, plain.end_ms) == (NOV_20, NOV_21)


def test_a_page_of_embeddings_and_what_is_not_metered() -> None:
    read = part("openai_embeddings.json")
    (row,) = read.usage
    assert (row.model, row.tokens, row.kind) == ("text-embedding-3-small", Tokens(16, 0, 0, 0), "embeddings")
    assert read.left_out == {"images": 1}


def test_a_page_of_costs() -> None:
    read = part("openai_costs.json")
    assert (read.source, read.has_more, read.next_page) == (Source.COST, True, "page_AAAAAGdGxdEiJdKOAAAAAGcqsYA=")
    assert [(row.model, row.token_class, row.tier, row.cost_nanos) for row in read.costs] == [
        ("gpt-4o-2024-08-06", "input", "", 375_000),
        ("gpt-4o-2024-08-06", "cache_read", "", 1_000_000),
        ("gpt-4o-2024-08-06", "output", "", 5_000_000),
        ("gpt-5.6-sol", "output", "priority", 250_000_000),
        ("gpt-6-astra", "input", "", 125_000_000),
        ("gpt-audio-mini-2025-12-15", "", "", 62_500_000),
        ("", "", "", 20_000_000),
    ]
    assert read.costs[-1].label == "web search tool calls"
    assert read.spans[-1] == (NOV_21, NOV_22)


def test_the_dashboard_s_tables() -> None:
    usage, costs = part("openai_usage.csv"), part("openai_costs.csv")
    assert [row.tokens for row in usage.usage] == [Tokens(59200, 5760, None, 10646), Tokens(5783, 0, None, 16000)]
    assert [row.requests for row in usage.usage] == [10, 1]
    assert usage.spans == ((NOV_20, NOV_21), (NOV_21, NOV_22)), "the line of blanks says that there was nothing"
    (amount,) = costs.costs
    assert (amount.model, amount.token_class, amount.cost_nanos) == ("gpt-4o-2024-08-06", "output", 895_874_000)
    assert costs.spans == usage.spans


@pytest.mark.parametrize(
    "text,expected",
    [
        ("gpt-4o-mini-2024-07-18, cached input", ("gpt-4o-mini-2024-07-18", "cache_read", "")),
        ("ft:gpt-4o-2024-08-06:acme::abc, output", ("ft:gpt-4o-2024-08-06:acme::abc", "output", "")),
        ("gpt-4o", ("gpt-4o", "", "")),
        ("whisper-1, audio", ("whisper-1", "", "")),
        ("gpt-image-1 image, output", ("gpt-image-1", "", "")),
        ("flex | gpt-5-2025-08-07, input", ("gpt-5-2025-08-07", "input", "flex")),
        ("gpt-5-2025-08-07, batch, input", ("gpt-5-2025-08-07", "input", "batch")),
        ("assistants api | file search", ("", "", "")),
        ("Vector storage", ("", "", "")),
        ("GPT-4o mini", ("", "", "")),
    ],
)
def test_line_items(text: str, expected: tuple[str, str, str]) -> None:
    assert line_item(text) == expected


def bucket(**fields: Any) -> dict[str, Any]:
    return {"object": "bucket", "start_time": NOV_20 // 1000, "end_time": NOV_21 // 1000, "results": []} | fields


def result(**fields: Any) -> dict[str, Any]:
    return {
        "object": "organization.usage.completions.result",
        "input_tokens": 1,
        "output_tokens": 1,
        "num_model_requests": 1,
        "model": "gpt-4o",
    } | fields


def cost(**fields: Any) -> dict[str, Any]:
    return {
        "object": "organization.costs.result",
        "amount": {"value": 1, "currency": "usd"},
        "line_item": "gpt-4o, input",
    } | fields


@pytest.mark.parametrize(
    "entry,said",
    [
        (bucket(start_time="soon"), "p.json, bucket 1: start_time is 'soon', not a whole number"),
        (bucket(start_time=-5), "start_time is -5"),
        (bucket(start_time=10**12), "not a time in Unix seconds"),
        (bucket(end_time=NOV_20 // 1000), "ends (2026-11-20T00:00:00Z) before it begins"),
        (bucket(end_time=NOV_22 // 1000), "not within one UTC day: ask again with bucket_width=1d"),
        (bucket(start_time=NOV_20 // 1000 + 1, end_time=NOV_21 // 1000 + 1), "not within one UTC day"),
        (bucket(results=None), "results is missing"),
        (bucket(results=["x"]), "bucket 1, result 1: expected an object, not 'x'"),
        (bucket(results=[result(object="chat.completion")]), "object is 'chat.completion'"),
        (bucket(results=[result(model=None)]), "not grouped by model: ask again with group_by=model"),
        (bucket(results=[result(model=7)]), "model is 7, not a text"),
        (bucket(results=[result(input_tokens=None)]), "input_tokens is missing"),
        (bucket(results=[result(input_tokens=-1)]), "input_tokens is -1, not a whole number"),
        (bucket(results=[result(input_tokens=1.5)]), "input_tokens is 1.5"),
        (bucket(results=[result(input_tokens=True)]), "input_tokens is True"),
        (bucket(results=[result(output_tokens=2**64)]), "output_tokens is"),
        (bucket(results=[result(input_cached_tokens=2)]), "more tokens of input are cached than there are"),
        (bucket(results=[cost(line_item=None)]), "not grouped by line item: ask again with group_by=line_item"),
        (bucket(results=[cost(amount=3)]), "amount: expected an object, not 3"),
        (bucket(results=[cost(amount={"value": "much", "currency": "usd"})]), "value is 'much', not an amount of money"),
        (bucket(results=[cost(amount={"value": 10**15, "currency": "usd"})]), "that anybody could be billed"),
        (bucket(results=[cost(amount={"value": 1, "currency": "eur"})]), "currency is 'eur', not USD"),
        (bucket(results=[cost(amount={"value": 1})]), "currency is missing"),
        (bucket(results=[cost(), result()]), "mixes usage and costs in one page"),
    ],
)
def test_bad_pages_are_one_sentence_with_the_place(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as fault:
        read_part(Page("p.json", {"data": [entry], "has_more": False}))
    assert said in str(fault.value)
    assert str(fault.value).startswith("p.json")
    assert "\n" not in str(fault.value)


def test_groups_without_a_model_and_without_tokens_are_passed_over() -> None:
    empty = result(model=None, input_tokens=0, output_tokens=0, num_model_requests=0)
    read = read_part(Page("p.json", {"data": [bucket(results=[empty])], "has_more": False}))
    assert read.usage == () and read.source is Source.EMPTY


@pytest.mark.parametrize(
    "text,said",
    [
        ("start_time,end_time,characters\n1795132800,1795219200,5\n", "has neither tokens"),
        (
            "start_time,end_time,amount_value,amount_currency,line_item\n1795132800,1795219200,1,usd,\n",
            "line 2: the amounts are not",
        ),
        ("start_time,end_time,amount_value,amount_currency,line_item\n1795132800,1795219200,1e,usd,x\n", "amount_value is '1e'"),
        (
            "start_time,end_time,num_model_requests,model,input_tokens,output_tokens\n1795132800,1795219200,1,,5,5\n",
            "line 2: the results are not grouped by model",
        ),
    ],
)
def test_bad_tables(text: str, said: str) -> None:
    (document,) = parse_documents(text, "t.csv")
    with pytest.raises(UserError) as fault:
        read_part(document)
    assert said in str(fault.value) and str(fault.value).startswith("t.csv")


def test_an_export_of_days_without_calls() -> None:
    (document,) = parse_documents("start_time,end_time,start_time_iso,end_time_iso\n1795132800,1795219200,a,b\n", "t.csv")
    assert read_part(document).source is Source.EMPTY

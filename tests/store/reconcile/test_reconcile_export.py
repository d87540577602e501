"""Files put together: whose they are, what is missing between them, and what would be counted twice."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from store.errors import UserError
from store.reconcile.export import combine, read_export, read_part
from store.reconcile.reading import parse_documents
from store.reconcile.types import DAY_MS, Export
from tests.store.reconcile.exports_here import FOLDER, NOV_20, NOV_21, NOV_22
from tests.support import exports
from tests.support.exports import Billed

DAYS = ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]


def read(*texts: str, provider: str | None = None) -> Export:
    documents = [document for number, text in enumerate(texts) for document in parse_documents(text, f"file{number}")]
    return combine([read_part(document) for document in documents], provider)


def pages(made: Sequence[Any]) -> list[str]:
    return [json.dumps(page) for page in made]


def complaint(*texts: str, provider: str | None = None) -> str:
    with pytest.raises(UserError) as fault:
        read(*texts, provider=provider)
    assert "\n" not in str(fault.value)
    return str(fault.value)


CALLS = [
    Billed(NOV_20 + 1000, "gpt-4o-2024-08-06", 100, 10, nanos={"fresh": 250_000, "output": 100_000}),
    Billed(NOV_22 + 1000, "gpt-4o-2024-08-06", 200, 20, nanos={"fresh": 500_000, "output": 200_000}),
]
CLAUDE = [Billed(NOV_20 + 1000, "claude-opus-5", 100, 10, nanos={"fresh": 500_000, "output": 250_000})]


def test_usage_and_costs_of_several_pages() -> None:
    export = read(*pages(exports.openai_usage(CALLS, DAYS, page_size=2)), *pages(exports.openai_costs(CALLS, DAYS, page_size=3)))
    assert export.provider == "openai"
    assert [row.tokens.input for row in export.usage] == [100, 200]
    assert sum(row.cost_nanos for row in export.costs) == 1_050_000
    assert export.usage_spans == export.cost_spans == ((NOV_20, NOV_20 + 4 * DAY_MS),)
    assert export.notes == ()


def test_a_missing_page_is_named_and_its_days_are_not_covered() -> None:
    first, second, third = pages(exports.openai_usage(CALLS, DAYS, page_size=1))[:3]
    export = read(first, third)
    assert export.usage_spans == ((NOV_20, NOV_21), (NOV_22, NOV_22 + DAY_MS))
    assert [note[:54] for note in export.notes] == [
        "file0 says has_more, and the page that goes on from 20",
        "file1 says has_more, and the page that goes on from 20",
    ]
    assert "on from 2026-11-21T00:00:00Z is missing: ask for it with page=page_2" in export.notes[0]
    assert [note.split()[0] for note in read(first, second).notes] == ["file1"]


@pytest.mark.parametrize("token", ["a b", "x" * 300, "é", "a\nb"])
def test_a_token_that_is_none_is_not_repeated(token: str) -> None:
    page = exports.openai_usage(CALLS, DAYS[:1])[0] | {"has_more": True, "next_page": token}
    (note,) = read(json.dumps(page)).notes
    assert note.endswith("is missing: ask for it")


def test_a_page_without_results_says_that_there_was_nothing_whichever_it_is() -> None:
    usage, costs = exports.openai_usage(CALLS, DAYS, page_size=1), exports.openai_costs(CALLS, DAYS, page_size=3)
    alone = read(*pages(usage))
    assert (alone.usage_spans, alone.cost_spans) == (((NOV_20, NOV_20 + 4 * DAY_MS),), ())
    both = read(*pages(usage), *pages(costs))
    assert both.usage_spans == both.cost_spans == ((NOV_20, NOV_20 + 4 * DAY_MS),)
    assert both.notes == ()


def test_what_is_left_out_is_said() -> None:
    export = read_export([FOLDER / "openai_embeddings.json", FOLDER / "openai_usage.json"])
    assert [row.kind for row in export.usage] == ["embeddings", *["completions"] * 3]
    assert export.notes == ("1 result(s) of images are left out: the gateway meters completions and embeddings",)


def test_whose_it_is() -> None:
    usage, claude = pages(exports.openai_usage(CALLS, DAYS))[0], pages(exports.anthropic_usage(CLAUDE, DAYS))[0]
    assert read(claude).provider == "anthropic"
    assert "file0 is of openai and file1 of anthropic: reconcile one provider at a time" == complaint(usage, claude)
    assert complaint(usage, provider="anthropic") == "file0 is an export of openai, not of anthropic"
    assert "name its --provider" in complaint('{"data": [], "has_more": false}')
    assert "holds no usage and no costs" in complaint('{"data": [], "has_more": false}', provider="openai")
    assert "holds no usage and no costs" in complaint(*pages(exports.openai_usage([], DAYS)))


@pytest.mark.parametrize(
    "text,said",
    [
        (
            '{"data": [{"id": "gpt-4o", "object": "model"}], "object": "list"}',
            "no page of an export that is known. Known are OpenAI",
        ),
        ('{"object": "chat.completion"}', "no page of an export"),
        ('{"data": {}}', "no page of an export"),
        ("date,model,tokens\n2026-11-20,gpt-4o,5\n", "the columns (date, model, tokens, …) are of no export that is known"),
    ],
)
def test_what_is_no_export(text: str, said: str) -> None:
    assert said in complaint(text)


def test_the_same_page_twice() -> None:
    usage = pages(exports.openai_usage(CALLS, DAYS))[0]
    assert "file0 and file1 hold the same calls (gpt-4o-2024-08-06, 2026-11-20): give each page once" in complaint(usage, usage)
    costs = pages(exports.anthropic_costs(CLAUDE, DAYS))[0]
    assert "hold the same calls (claude-opus-5, 2026-11-20)" in complaint(costs, costs)


def test_the_same_calls_in_two_formats_or_widths() -> None:
    usage = pages(exports.openai_usage(CALLS, DAYS))[0]
    assert "API pages or a CSV, not both" in complaint(usage, exports.openai_usage_csv(CALLS, DAYS))
    hourly = pages(exports.openai_usage(CALLS, DAYS, width=3600, page_size=200))[0]
    assert "hold the same calls" in complaint(hourly, usage)


def test_files_of_different_keys_add_up() -> None:
    grouped = ("model", "api_key_id")
    one = pages(exports.openai_usage([CALLS[0]], DAYS, group_by=grouped))[0]
    other = Billed(NOV_20 + 1000, "gpt-4o-2024-08-06", 7, 1, key="key_B")
    export = read(one, pages(exports.openai_usage([other], DAYS, group_by=grouped))[0])
    assert sorted(row.tokens.input or 0 for row in export.usage) == [7, 100]
    assert "hold the same calls" in complaint(one, pages(exports.openai_usage([CALLS[0]], DAYS, group_by=grouped))[0])
    assert "hold the same calls" in complaint(one, pages(exports.openai_usage([other], DAYS))[0]), (
        "one of them is not grouped by key"
    )


def test_lines_of_one_table_may_repeat_themselves() -> None:
    export = read_export([FOLDER / "openai_usage.csv"])
    assert sum(row.requests or 0 for row in export.usage) == 11


def test_several_files(tmp_path: Path) -> None:
    for number, text in enumerate(pages(exports.openai_usage(CALLS, DAYS, page_size=2))):
        (tmp_path / f"{number}.json").write_text(text)
    assert len(read_export(sorted(tmp_path.iterdir())).usage) == 2

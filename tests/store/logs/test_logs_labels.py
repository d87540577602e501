"""The comment line, the mark and the named values of a call."""

import pytest

from store.logs.labels import comment_of, mark_of, metadata_of
from store.logs.types import CallRow

CALL = CallRow(
    id="c-1", at_ms=0, status="success", http_status=200, provider="openai", model="gpt-4o-mini", virtual_key_id="vk-1",
    virtual_key_name="workshop-vk-1", cost_nanos=123_000, input_tokens=12, output_tokens=48, caps_charged=("a", "b"),
)  # fmt: skip


def changed(**more: object) -> CallRow:
    from dataclasses import replace

    return replace(CALL, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "comment", "mark"),
    [
        (CALL, "workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok", ""),
        (changed(estimated=True, status="cut"), "workshop-vk-1 · gpt-4o-mini · ~$0.000123 · 12→48 tok", ":scissors:"),
        (changed(priced=False), "workshop-vk-1 · gpt-4o-mini · unpriced · 12→48 tok", ""),
        (
            changed(status="refused", http_status=402, refusal_type="budget_exceeded", count=9),
            "workshop-vk-1 · gpt-4o-mini · 402 budget_exceeded ×9",
            ":no_entry:",
        ),
        (changed(virtual_key_name="", model="", operation="embedding"), "no key · embedding · $0.000123 · 12→48 tok", ""),
    ],
)
def test_one_line_says_who_what_and_how_much(row: CallRow, comment: str, mark: str) -> None:
    assert comment_of(row) == comment
    assert mark_of(row) == mark


def test_named_values_leave_out_what_is_empty_but_not_what_is_zero() -> None:
    values = metadata_of(changed(cost_nanos=0, first_token_ms=0), budgets=["daily", "monthly"], team="research")
    assert values == {
        "call": "c-1", "key": "workshop-vk-1", "key_id": "vk-1", "team": "research", "provider": "openai", "model": "gpt-4o-mini",
        "status": "success", "budgets": "daily, monthly", "cost_usd": "0", "estimated": False, "input_tokens": 12,
        "output_tokens": 48, "cache_read_tokens": 0, "cache_write_tokens": 0, "reasoning_tokens": 0, "latency_ms": 0,
        "first_token_ms": 0,
    }  # fmt: skip
    refused = metadata_of(changed(status="refused", refusal_type="budget_exceeded", refusal_cap="cap-1"))
    assert refused["refusal"] == "budget_exceeded" and "cost_usd" not in refused and refused["budgets"] == "a, b"

"""What a viewer sees of a flow: comment, mark, metadata and a bounded transcript; no secrets."""

from typing import Any

import pytest

from addons.call import Call, WayIn
from addons.refusal import Refusal
from addons.steps import meter
from addons.steps.label import comment, label
from store.ledger.types import Exceeded, Granted
from store.usage import Reading, Usage
from tests.support import calls
from tests.support.calls import cap, cap_state


def finished(**fields: Any) -> Call:
    """A call of 12 and 48 tokens that cost $0.0000306."""
    made = calls.call()
    made.virtual_key = calls.virtual_key(team_name="blue", customer_name="acme")
    made.model, made.client_path = "gpt-4o-mini", "/openai/v1/chat/completions"
    made.cost_nanos = 30_600
    made.reading = Reading(usage=Usage(12, 48))
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_priced_call() -> None:
    assert comment(finished()) == "workshop-vk-1 · gpt-4o-mini · $0.0000306 · 12→48 tok"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"estimated": True}, "workshop-vk-1 · gpt-4o-mini · ~$0.0000306 · 12→48 tok"),
        ({"priced": False}, "workshop-vk-1 · gpt-4o-mini · unpriced · 12→48 tok"),
        ({"priced": False, "estimated": True}, "workshop-vk-1 · gpt-4o-mini · unpriced · 12→48 tok"),
        ({"virtual_key": None}, "no key · gpt-4o-mini · $0.0000306 · 12→48 tok"),
        ({"reading": Reading()}, "workshop-vk-1 · gpt-4o-mini · $0.0000306"),
        ({"model": "", "operation": "messages"}, "workshop-vk-1 · messages · $0.0000306 · 12→48 tok"),
        ({"model": ""}, "workshop-vk-1 · /openai/v1/chat/completions · $0.0000306 · 12→48 tok"),
        ({"cost_nanos": 0}, "workshop-vk-1 · gpt-4o-mini · $0.00 · 12→48 tok"),
    ],
)
def test_other_endings(fields: dict[str, Any], expected: str) -> None:
    assert comment(finished(**fields)) == expected


def test_refusals_name_their_reason_and_their_cap() -> None:
    made = finished()
    made.refuse(Refusal(402, "budget_exceeded", "…", (Exceeded(cap_state(cap()), 5),)))
    assert comment(made) == "workshop-vk-1 · gpt-4o-mini · 402 budget_exceeded · cap-1-name"
    made = finished()
    made.refuse(Refusal(400, "invalid_request", "…"))
    assert comment(made) == "workshop-vk-1 · gpt-4o-mini · 400 invalid_request"


@pytest.mark.parametrize(
    ("status", "mark"),
    [("success", ""), ("refused", ":no_entry:"), ("cut", ":scissors:"), ("error", ":warning:"), ("cancelled", ":door:")],
)
def test_marks(status: str, mark: str) -> None:
    made = finished()
    label(made, calls.services(), status)
    assert made.flow.marked == mark


def test_metadata_answers_filters() -> None:
    made = finished(hold=Granted("call-1", 100, False, (cap_state(cap("a")), cap_state(cap("b")))))
    label(made, calls.services(), "success")
    assert made.flow.metadata["tollgate"] == {
        "call": "call-1", "status": "success", "provider": "", "model": "gpt-4o-mini", "key": "workshop-vk-1", "key_id": "vk-1",
        "team": "blue", "customer": "acme", "cost_usd": "0.0000306", "input_tokens": 12, "output_tokens": 48,
        "gateway_path": "/openai/v1/chat/completions", "budgets": "a-name, b-name",
    }  # fmt: skip
    assert made.flow.comment == comment(made)


def test_refusals_show_every_cap_that_was_hit() -> None:
    made = finished()
    hit = tuple(Exceeded(cap_state(cap(name)), 5) for name in ("a", "b"))
    made.refuse(Refusal(402, "budget_exceeded", "…", hit))
    label(made, calls.services(), "refused")
    meta = made.flow.metadata["tollgate"]
    assert (meta["refusal"], meta["budgets"]) == ("budget_exceeded", "a-name, b-name")


@pytest.mark.parametrize(
    ("query", "shown"), [("", ""), ("alt=sse", "?alt=sse"), ("alt=sse&key=AIza-own", ""), ("key=AIza-own", "")]
)
def test_the_path_is_shown_without_keys(query: str, shown: str) -> None:
    made = finished(query=query)
    label(made, calls.services(), "success")
    assert made.flow.metadata["tollgate"]["gateway_path"] == "/openai/v1/chat/completions" + shown


def test_forward_calls_show_their_own_address_already() -> None:
    made = finished(way_in=WayIn.FORWARD)
    label(made, calls.services(), "success")
    assert "gateway_path" not in made.flow.metadata["tollgate"]


@pytest.mark.parametrize(("limit", "kept"), [(5, b"hello"), (0, b"")])
async def test_streamed_answers_carry_a_bounded_transcript(limit: int, kept: bytes) -> None:
    services = calls.services(body_log_bytes=limit)
    made = await calls.on_its_way(calls.call(body=calls.chat(stream=True)), services)
    response = calls.answered(made, content_type="text/event-stream")
    meter.begin(made, services)
    assert made.reader is not None
    made.reader.feed(b'data: {"choices":[{"delta":{"content":"hello there"}}]}\n\n')
    label(made, services, "success")
    assert response.data.content == kept


def test_a_buffered_answer_stays_as_it_came() -> None:
    made = finished()
    response = calls.answered(made, content=b'{"a": 1}')
    label(made, calls.services(body_log_bytes=3), "success")
    assert response.content == b'{"a": 1}'

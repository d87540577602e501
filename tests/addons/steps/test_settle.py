"""What each ending costs, to the nano-dollar, posted once.

gpt-4o-mini: 150 nano-dollars a token in, 600 out. The request says `hello` (34 tokens are likely, 35 the bound) and allows 100
tokens of output, so it holds 65,250.
"""

import json
from dataclasses import replace
from typing import Any

import pytest

from addons import outcomes
from addons.call import Call, State
from addons.policy import AssumedPrice
from addons.services import Services
from addons.steps import meter
from addons.steps.settle import settle
from store.ledger.types import Settlement
from store.usage import Reading, Usage
from tests.support import calls
from tests.support.calls import RecordingLedger

INPUT_ONLY = 34 * 150
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


class Told:
    """A reader that says what it is told to."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def feed(self, chunk: bytes) -> bytes:
        return chunk

    def finish(self) -> bytes:
        return b""

    def reading(self) -> Reading:
        return self._reading

    def transcript(self, limit: int) -> str:
        return ""

    def cut(self, event: bytes, body: bytes) -> bytes:
        return event


def final(input_tokens: int = 12, output_tokens: int = 48, **fields: Any) -> Reading:
    return Reading(usage=Usage(input_tokens, output_tokens), model="gpt-4o-mini", usage_is_final=True, **fields)


async def sent(services: Services | None = None, model: str = "gpt-4o-mini", **fields: Any) -> tuple[Call, Services]:
    """A call on its way to OpenAI, held, with 100 tokens of output at most."""
    services = services or calls.services()
    made = await calls.on_its_way(calls.call(body=calls.chat(model=model, **({"max_tokens": 100} | fields))), services)
    assert made.refusal is None
    return made, services


def begun(made: Call, services: Services, reading: Reading | None = None, status: int = 200) -> None:
    """The head of the answer has come; `reading` replaces what the dialect would read."""
    streamed = bool(made.facts and made.facts.stream)
    calls.answered(made, status, content_type="text/event-stream" if streamed else "application/json")
    meter.begin(made, services)
    if reading is not None:
        made.reader = Told(reading)


def posted(services: Services) -> Settlement:
    """The one settlement."""
    ledger = services.ledger
    if not isinstance(ledger, RecordingLedger):
        raise TypeError("these services have a ledger of their own")
    (only,) = ledger.settlements
    return only


async def test_a_reported_usage_is_charged_exactly() -> None:
    """12 × 150 + 48 × 600 = 30,600 nano-dollars."""
    made, services = await sent()
    begun(made, services, final())
    settle(made, services, outcomes.COMPLETE)
    assert posted(services) == Settlement(
        "call-1", 30_600, 60, sent=True, estimated=False, input_tokens=12, output_tokens=48, model="gpt-4o-mini",
        price_source="genai-prices 0.2.3", note="complete",
    )  # fmt: skip
    assert (made.cost_nanos, made.estimated, made.priced, made.state) == (30_600, False, True, State.SETTLED)


async def test_a_real_answer_is_read_by_its_dialect() -> None:
    made, services = await sent()
    begun(made, services)
    usage = {"prompt_tokens": 12, "completion_tokens": 48, "total_tokens": 60, "prompt_tokens_details": {"cached_tokens": 10}}
    assert made.flow.response is not None
    made.flow.response.raw_content = json.dumps({"model": "gpt-4o-mini", "choices": [], "usage": usage}).encode()
    meter.read_whole(made)
    settle(made, services, outcomes.COMPLETE)
    assert posted(services).cost_nanos == 2 * 150 + 10 * 75 + 48 * 600


async def test_settling_twice_posts_once() -> None:
    made, services = await sent()
    begun(made, services, final())
    settle(made, services, outcomes.COMPLETE)
    settle(made, services, outcomes.CLIENT_LEFT)
    assert (posted(services).note, made.outcome) == ("complete", "complete")


async def test_what_was_never_sent_is_voided() -> None:
    made, services = await sent()
    made.sent = False
    settle(made, services, outcomes.UPSTREAM_FAILED)
    assert posted(services) == Settlement("call-1", 0, 0, sent=False, note="upstream_failed")


async def test_without_a_hold_there_is_nothing_to_post() -> None:
    made, services = await sent()
    made.hold = None
    settle(made, services, outcomes.COMPLETE)
    assert isinstance(services.ledger, RecordingLedger) and services.ledger.settlements == []
    assert made.settled


@pytest.mark.parametrize("status", [301, 400, 401, 429, 500, 529])
async def test_a_status_beyond_2xx_costs_nothing_and_counts(status: int) -> None:
    made, services = await sent()
    begun(made, services, status=status)
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).tokens, posted(services).sent) == (0, 0, True)
    assert not made.estimated


async def test_a_web_page_is_no_answer_and_costs_nothing() -> None:
    made, services = await sent()
    calls.answered(made, content=b"<html>", content_type="text/html; charset=utf-8")
    meter.begin(made, services)
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).sent) == (0, True)


async def test_a_provider_that_fails_before_it_answers_is_not_paid() -> None:
    made, services = await sent()
    settle(made, services, outcomes.UPSTREAM_FAILED)
    assert (posted(services).cost_nanos, posted(services).sent) == (0, True)


@pytest.mark.parametrize("outcome", [outcomes.CLIENT_LEFT, outcomes.TIMED_OUT, outcomes.STOPPED])
async def test_a_buffered_answer_nobody_waited_for_costs_its_usual_output(outcome: str) -> None:
    """Nothing is known of this key's answers: 256 tokens, of which the request allows 100. 34 × 150 + 100 × 600."""
    made, services = await sent()
    settle(made, services, outcome)
    assert (posted(services).cost_nanos, posted(services).estimated, posted(services).sent) == (65_100, True, True)
    assert (posted(services).input_tokens, posted(services).output_tokens, posted(services).note) == (34, 100, outcome)


@pytest.mark.parametrize("outcome", [outcomes.CLIENT_LEFT, outcomes.UPSTREAM_FAILED, outcomes.TIMED_OUT])
async def test_a_buffered_answer_that_breaks_on_its_way_was_made_and_is_billed(outcome: str) -> None:
    """Its head was there: 60 bytes of it say little, the usual output more."""
    made, services = await sent()
    begun(made, services, Reading(output_bytes=60))
    settle(made, services, outcome)
    assert (posted(services).cost_nanos, posted(services).estimated) == (65_100, True)


async def test_usual_output_is_what_was_learnt() -> None:
    services = calls.services()
    services.learned.observe("openai", "gpt-4o-mini", "vk-1", 0, 0, 40)
    made, _ = await sent(services)
    settle(made, services, outcomes.CLIENT_LEFT)
    assert posted(services).cost_nanos == INPUT_ONLY + 40 * 600


async def test_a_stream_abandoned_before_its_head_costs_its_input() -> None:
    made, services = await sent(**STREAM)
    settle(made, services, outcomes.CLIENT_LEFT)
    assert (posted(services).cost_nanos, posted(services).estimated) == (INPUT_ONLY, True)


@pytest.mark.parametrize("outcome", [outcomes.CLIENT_LEFT, outcomes.UPSTREAM_FAILED, outcomes.TIMED_OUT, outcomes.STOPPED])
@pytest.mark.parametrize(
    ("reading", "output"),
    [
        (Reading(output_bytes=30, output_events=3), 10),  # a token for three bytes
        (Reading(output_bytes=31, output_events=3), 11),
        (Reading(output_bytes=6, output_events=6), 6),  # every piece is a token at least
        (Reading(output_bytes=0), 0),
        (Reading(output_bytes=9_000, output_events=9), 100),  # a guess by bytes stays within what was held
        (Reading(output_bytes=300, output_events=120), 120),  # certain counts do not
    ],
)
async def test_a_stream_that_breaks_costs_what_was_seen(outcome: str, reading: Reading, output: int) -> None:
    made, services = await sent(**STREAM)
    begun(made, services, reading)
    settle(made, services, outcome)
    assert (posted(services).output_tokens, posted(services).cost_nanos) == (output, INPUT_ONLY + output * 600)
    assert posted(services).estimated


async def test_a_cut_stream_costs_all_that_was_seen() -> None:
    """Beyond the hold by design: 9,000 bytes are 3,000 tokens, whatever was held."""
    made, services = await sent(**STREAM)
    begun(made, services, Reading(output_bytes=9_000, output_events=9))
    made.cut = True
    settle(made, services, outcomes.CUT)
    assert posted(services).cost_nanos == INPUT_ONLY + 3_000 * 600


async def test_first_counts_are_not_the_last() -> None:
    """Anthropic's first event says 25 in and 1 out. 60 bytes later the stream breaks: 25 as reported, 20 out by bytes."""
    services = calls.services()
    body = calls.message(stream=True)
    made = await calls.on_its_way(calls.call("/anthropic/v1/messages", body=body), services)
    calls.answered(made, content_type="text/event-stream")
    meter.begin(made, services)
    start = {"type": "message_start", "message": {"model": "claude-haiku-4-5", "usage": {"input_tokens": 25, "output_tokens": 1}}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a" * 60}}
    assert made.reader is not None
    for event in (start, delta):
        made.reader.feed(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n")
    settle(made, services, outcomes.UPSTREAM_FAILED)
    assert (posted(services).cost_nanos, posted(services).estimated) == (25 * 1_000 + 20 * 5_000, True)


async def test_even_a_proper_end_needs_final_counts() -> None:
    """A complete stream that reported nothing is estimated, never free."""
    made, services = await sent(**STREAM)
    begun(made, services, Reading(output_bytes=30, output_events=3))
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).estimated) == (INPUT_ONLY + 10 * 600, True)


async def test_a_silent_whole_answer_is_never_free() -> None:
    made, services = await sent()
    begun(made, services, Reading(output_bytes=30))
    settle(made, services, outcomes.COMPLETE)
    assert INPUT_ONLY + 10 * 600 <= posted(services).cost_nanos <= 65_250
    assert posted(services).estimated


async def test_an_answer_nobody_could_read_costs_its_hold() -> None:
    """The reader had a fault: what was said is not known, and 100 tokens were held."""
    made, services = await sent(**STREAM)
    begun(made, services)
    made.reader, made.reader_failed = None, True
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).estimated) == (INPUT_ONLY + 100 * 600, True)


async def test_a_signed_call_that_broke_is_not_cheaper() -> None:
    """Nothing is written into a signed request; its hold counts all the same."""
    services = calls.services()
    request = calls.call(body=calls.chat(max_tokens=100), headers={"authorization": "Bearer sk-own", "digest": "sha-256=abc"})
    made = await calls.on_its_way(request, services)
    assert made.signed
    settle(made, services, outcomes.CLIENT_LEFT)
    assert posted(services).cost_nanos == 65_100


async def test_embeddings_that_broke_cost_their_input() -> None:
    services = calls.services()
    request = calls.call("/openai/v1/embeddings", body=b'{"model": "text-embedding-3-small", "input": "hello"}')
    made = await calls.on_its_way(request, services)
    settle(made, services, outcomes.CLIENT_LEFT)
    assert posted(services).output_tokens == 0
    assert posted(services).cost_nanos == posted(services).input_tokens * 20 > 0


async def test_the_model_that_answered_is_the_one_that_is_paid() -> None:
    """gpt-4o came for gpt-4o-mini: $2.50 and $10. More than was held, and booked in full."""
    made, services = await sent()
    begun(made, services, replace(final(), model="gpt-4o"))
    settle(made, services, outcomes.COMPLETE)
    assert made.hold is not None
    assert posted(services).cost_nanos == 12 * 2_500 + 48 * 10_000 > made.hold.amount_nanos


async def test_a_part_without_a_price_costs_the_whole_hold() -> None:
    """A helper model nobody knows was billed beside: dearer than free by accident."""
    made, services = await sent()
    begun(made, services, final(further=(("no-such-model", Usage(5, 5)),)))
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).estimated) == (65_250, True)


async def test_an_assumed_price_is_charged() -> None:
    made, services = await sent(calls.services(unpriced=AssumedPrice(10_000_000, 20_000_000)), model="no-such-model")
    begun(made, services, replace(final(), model="no-such-model"))
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).price_source) == (12 * 10_000 + 48 * 20_000, "gateway.unpriced")


async def test_what_has_no_price_says_so() -> None:
    made, services = await sent(calls.services(unpriced="allow"), model="no-such-model")
    begun(made, services, replace(final(), model="no-such-model"))
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).tokens, made.priced) == (0, 60, False)


async def test_the_providers_own_figure_is_better_than_none() -> None:
    made, services = await sent(calls.services(unpriced="allow"), model="no-such-model")
    begun(made, services, replace(final(), model="no-such-model", provider_cost_nanos=1_234))
    settle(made, services, outcomes.COMPLETE)
    assert (posted(services).cost_nanos, posted(services).price_source, made.priced) == (1_234, "provider", True)


def ratio(services: Services) -> float:
    return services.learned.tokens_per_byte("openai", "gpt-4o-mini", -1.0)


LONG: dict[str, Any] = {"messages": [{"role": "user", "content": "a" * 1_000}]}


async def test_exact_reports_teach() -> None:
    """232 tokens less 32 of framing for 1,000 bytes: 0.2, and a quarter on top."""
    made, services = await sent(**LONG)
    begun(made, services, final(input_tokens=232, answer_id="resp_1"))
    settle(made, services, outcomes.COMPLETE)
    assert ratio(services) == pytest.approx(0.25)
    assert services.learned.usual_output("vk-1", "openai", "gpt-4o-mini") == 48
    assert services.answers.tokens("resp_1") == 280


@pytest.mark.parametrize("outcome", [outcomes.CLIENT_LEFT, outcomes.UPSTREAM_FAILED])
async def test_estimates_teach_nothing(outcome: str) -> None:
    made, services = await sent(**LONG, **STREAM)
    begun(made, services, Reading(output_bytes=300, output_events=3, answer_id="resp_1"))
    settle(made, services, outcome)
    assert ratio(services) == -1.0
    assert services.learned.usual_output("vk-1", "openai", "gpt-4o-mini") is None
    assert services.answers.tokens("resp_1") is None


async def test_errors_teach_nothing() -> None:
    made, services = await sent(**LONG)
    begun(made, services, status=400)
    settle(made, services, outcomes.COMPLETE)
    assert ratio(services) == -1.0


async def test_pictures_teach_no_ratio_but_an_output() -> None:
    parts = [{"type": "text", "text": "a" * 1_000}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    made, services = await sent(messages=[{"role": "user", "content": parts}])
    begun(made, services, final(input_tokens=900))
    settle(made, services, outcomes.COMPLETE)
    assert (ratio(services), services.learned.usual_output("vk-1", "openai", "gpt-4o-mini")) == (-1.0, 48)

"""The chain as a whole: the order of steps, resolving again when the governance changed, and ends that lose no money."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from addons import chain, outcomes
from addons.call import Call, State
from addons.services import Services
from store.config_store.snapshot import (
    ANY,
    NO_MODEL_CAPS,
    ModelCaps,
    ModelLimit,
    Provider,
    ProviderConfig,
    ProviderKey,
    Snapshot,
    VirtualKey,
)  # fmt: skip
from store.errors import StoreUnavailable
from store.ledger.types import Enforcement, Granted, HoldRequest, Refused, Stale, Unit
from store.logs.types import CallRow
from tests.support import calls
from tests.support.calls import KEY, FixedSnapshots, RecordingLedger, RecordingLogs, cap

UNMETERED = "/openai/v1/images/generations"


def ledger_of(services: Services) -> RecordingLedger:
    if not isinstance(services.ledger, RecordingLedger):
        raise TypeError("these services have a ledger of their own")
    return services.ledger


def refused(made: Call) -> tuple[int, str] | None:
    return None if made.refusal is None else (made.refusal.status, made.refusal.type)


def governed(*following: Snapshot, key: VirtualKey | None = None, **policy: Any) -> Services:
    """A key with one hard budget, and the snapshots that come after."""
    first = calls.snapshot({KEY: key or calls.virtual_key(caps=(cap(),))})
    services = calls.services(first, **policy)
    services.snapshots = FixedSnapshots(first, list(following))
    return services


async def test_a_call_goes_all_the_way() -> None:
    services = governed()
    made = await calls.on_its_way(calls.call(body=calls.chat(max_tokens=100)), services)
    request = made.flow.request
    assert (made.refusal, made.state, made.cap_ids) == (None, State.HELD, ("cap-1",))
    assert (request.scheme, request.host, request.path) == ("https", "api.openai.com", "/v1/chat/completions")
    assert (request.headers["host"], request.headers["authorization"]) == ("api.openai.com", "Bearer secret-of-openai")
    assert "x-bf-vk" not in request.headers


@dataclass
class WatchingLedger(RecordingLedger):
    """Looks at the call at the moment of the hold."""

    look: Callable[[], None] = lambda: None
    error: Exception | None = None

    async def hold(self, request: HoldRequest) -> Granted | Refused | Stale:
        self.look()
        if self.error is not None:
            raise self.error
        return await super().hold(request)


async def test_money_is_held_before_key_and_address_are_written() -> None:
    services = governed()
    made = calls.call(body=calls.chat())
    seen: list[tuple[str, bool]] = []
    services.ledger = WatchingLedger(look=lambda: seen.append((made.flow.request.host, b"authorization" in made.changes)))
    await calls.on_its_way(made, services)
    assert seen == [("127.0.0.1", False)]
    assert made.provider_key is not None


async def test_a_refused_call_never_held_a_key() -> None:
    services = governed(key=calls.virtual_key(caps=(cap(),)))
    made = await calls.on_its_way(calls.call(body=calls.chat(model="no-such-model")), services)
    assert refused(made) == (402, "unpriced_model")
    assert (made.provider_key, made.flow.request.host) == (None, "127.0.0.1")
    assert "secret" not in str(made.flow.request.headers.fields)


async def test_no_provider_key_gives_the_hold_back() -> None:
    """The hold was granted, and then there was nothing to send: it is voided, not posted."""
    services = calls.services(calls.snapshot(providers={"openai": Provider("openai", "openai")}))
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    assert refused(made) == (400, "no_provider_key")
    chain.end(made, services, outcomes.NOT_SENT)
    (settlement,) = ledger_of(services).settlements
    assert (settlement.sent, settlement.cost_nanos) == (False, 0)


async def test_a_ledger_out_of_reach_is_told_to_the_guard() -> None:
    services = governed()
    services.ledger = WatchingLedger(error=StoreUnavailable("disk full"))
    made = calls.call(body=calls.chat())
    with pytest.raises(StoreUnavailable):
        await calls.on_its_way(made, services)
    assert (made.provider_key, made.flow.request.host) == (None, "127.0.0.1")


# Free and unknown paths


async def test_a_free_path_is_ready_at_its_head() -> None:
    services = governed()
    made = calls.call("/openai/v1/models", method="GET", headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    assert made.flow.request.headers["authorization"] == "Bearer secret-of-openai"
    assert (made.flow.request.host, chain.is_streamed_through(made)) == ("api.openai.com", True)
    assert ledger_of(services).holds == []


def test_a_metered_path_is_not_streamed_through() -> None:
    made = calls.call(headers={"x-bf-vk": KEY})
    chain.head(made, governed(), "origin", None)
    assert not chain.is_streamed_through(made)
    assert made.flow.request.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("caps", "unmetered", "expected"),
    [
        ((cap(),), "block", (403, "unmetered_endpoint")),
        ((cap(),), "allow", None),
        ((cap(enforcement=Enforcement.SOFT),), "block", None),
        ((cap(enforcement=Enforcement.OBSERVE),), "block", None),
        ((cap(unit=Unit.REQUESTS),), "block", None),
        ((), "block", None),
    ],
)
def test_what_cannot_be_metered_does_not_pass_a_hard_budget(caps: Any, unmetered: str, expected: Any) -> None:
    services = governed(key=calls.virtual_key(caps=caps), unmetered=unmetered)
    made = calls.call(UNMETERED, headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    assert refused(made) == expected
    assert (made.flow.request.host == "api.openai.com") is (expected is None)
    assert chain.is_streamed_through(made) is (expected is None)


@pytest.mark.parametrize(
    ("model", "provider", "path", "blocked"),
    [
        ("gpt-4o", None, UNMETERED, True),
        ("gpt-4*", None, UNMETERED, True),
        ("*", None, UNMETERED, True),
        ("a-model-of-tomorrow", "openai", UNMETERED, True),
        ("claude-haiku-4-5", None, UNMETERED, False),
        ("claude*", None, UNMETERED, False),
        ("claude*", None, "/anthropic/v1/nobody-knows", True),
        ("gpt-4o", "anthropic", UNMETERED, False),
        ("own-model", None, "/own/v1/nobody-knows", True),
    ],
)
@pytest.mark.parametrize("of_key", [True, False])
def test_what_cannot_be_metered_does_not_pass_a_budget_on_a_model_it_may_use(
    model: str, provider: str | None, path: str, blocked: bool, of_key: bool
) -> None:
    limits = ModelCaps.of([ModelLimit("mc", model, provider, (cap(),))])
    own = Provider("own", "vllm", base_url="http://own.test", keys=(ProviderKey("k", "k", "secret"),))
    key = calls.virtual_key(model_caps=limits if of_key else NO_MODEL_CAPS)
    services = calls.services(calls.snapshot({KEY: key}, {"own": own}, model_caps=NO_MODEL_CAPS if of_key else limits))
    made = calls.call(path, headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    assert refused(made) == ((403, "unmetered_endpoint") if blocked else None)


def test_a_blocked_key_has_no_free_paths_either() -> None:
    made = calls.call("/openai/v1/models", method="GET", headers={"x-bf-vk": KEY})
    chain.head(made, governed(key=calls.virtual_key(is_active=False)), "origin", None)
    assert refused(made) == (403, "virtual_key_blocked")
    assert "authorization" not in made.flow.request.headers


def test_a_head_that_goes_nowhere_is_not_identified() -> None:
    made = calls.call("/nowhere/v1", headers={"x-bf-vk": KEY})
    chain.head(made, governed(), "origin", None)
    assert (refused(made), made.virtual_key) == ((404, "not_found"), None)


def test_a_key_made_a_moment_ago_gets_its_second_chance() -> None:
    services = calls.services(calls.snapshot({}))
    made = calls.call("/openai/v1/models", method="GET", headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    assert refused(made) == (401, "virtual_key_not_found")
    services.snapshots = FixedSnapshots(calls.snapshot(revision=2))
    chain.head_again(made, services)
    assert (made.refusal, made.flow.request.host) == (None, "api.openai.com")
    assert made.governance().revision == 2


def test_the_second_chance_forgives_nothing() -> None:
    services = calls.services(calls.snapshot({}))
    made = calls.call("/openai/v1/models", method="GET", headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    chain.head_again(made, services)
    assert (refused(made), made.flow.request.host) == ((401, "virtual_key_not_found"), "127.0.0.1")


# /v1


async def test_permission_is_asked_for_the_model_without_its_prefix() -> None:
    config = ProviderConfig("pc", "groq", allowed_models=("llama-*",))
    services = governed(key=calls.virtual_key(provider_configs=(config,)))
    made = await calls.on_its_way(
        calls.call("/v1/chat/completions", body=calls.chat(model="groq/llama-3.3-70b-versatile")), services
    )
    assert (made.refusal, made.requested_model, made.model) == (None, "groq/llama-3.3-70b-versatile", "llama-3.3-70b-versatile")
    request = made.flow.request
    assert (request.host, request.path) == ("api.groq.com", "/openai/v1/chat/completions")
    assert request.headers["authorization"] == "Bearer secret-of-groq"
    assert json.loads(request.raw_content or b"")["model"] == "llama-3.3-70b-versatile"


async def test_a_prefix_is_no_way_round_the_lists() -> None:
    config = ProviderConfig("pc", "openai", allowed_models=(ANY,))
    services = governed(key=calls.virtual_key(provider_configs=(config,)))
    made = await calls.on_its_way(
        calls.call("/v1/chat/completions", body=calls.chat(model="groq/llama-3.3-70b-versatile")), services
    )
    assert refused(made) == (403, "provider_blocked")
    assert ledger_of(services).holds == []


async def test_the_gateway_does_not_translate() -> None:
    services = governed()
    made = await calls.on_its_way(calls.call("/v1/chat/completions", body=calls.chat(model="anthropic/claude-haiku-4-5")), services)
    assert (refused(made), ledger_of(services).holds) == ((400, "wrong_dialect"), [])


# Stale


async def test_changed_caps_are_resolved_again() -> None:
    """The second hold names the new caps and the new revision."""
    owner = calls.virtual_key(caps=(cap("cap-2"), cap("cap-3", strict=True)))
    services = governed(calls.snapshot({KEY: owner}, revision=2))
    ledger_of(services).answers.append(Stale(2))
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    first, second = ledger_of(services).holds
    assert (first.cap_ids, first.revision) == (("cap-1",), 1)
    assert (second.cap_ids, second.revision) == (("cap-2", "cap-3"), 2)
    assert second.strict_bound_nanos > second.bound_nanos and made.hold_is_strict
    assert (made.refusal, made.cap_ids) == (None, ("cap-2", "cap-3"))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, (401, "virtual_key_not_found")),
        ({KEY: calls.virtual_key(is_active=False)}, (403, "virtual_key_blocked")),
        ({KEY: calls.virtual_key(provider_configs=())}, (403, "provider_blocked")),
        ({KEY: calls.virtual_key(provider_configs=(ProviderConfig("pc", ANY),))}, (403, "model_blocked")),
    ],
)
async def test_what_was_taken_away_meanwhile_is_gone(keys: dict[str, VirtualKey], expected: tuple[int, str]) -> None:
    services = governed(calls.snapshot(keys, revision=2))
    ledger_of(services).answers.append(Stale(2))
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    assert refused(made) == expected
    assert len(ledger_of(services).holds) == 1
    assert (made.provider_key, made.flow.request.host) == (None, "127.0.0.1")


async def test_a_rotated_provider_key_is_the_new_one() -> None:
    openai = Provider("openai", "openai", keys=(ProviderKey("openai-2", "new", "new-secret"),))
    services = governed(calls.snapshot(providers={"openai": openai}, revision=2))
    ledger_of(services).answers.append(Stale(2))
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    assert made.flow.request.headers["authorization"] == "Bearer new-secret"


async def test_endless_edits_end_in_a_transient_refusal() -> None:
    services = governed()
    ledger_of(services).answers += [Stale(number) for number in range(2, 50)]
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    assert (refused(made), len(ledger_of(services).holds)) == ((503, "gateway_unavailable"), chain.STALE_TRIES)
    assert made.refusal is not None and made.refusal.retry_after == 2
    assert made.hold is None


async def test_the_last_try_may_still_succeed() -> None:
    services = governed()
    ledger_of(services).answers += [Stale(number) for number in range(2, 2 + chain.STALE_TRIES - 1)]
    assert (await calls.on_its_way(calls.call(body=calls.chat()), services)).refusal is None


# The end


@dataclass
class BrokenLogs(RecordingLogs):
    """Logs with a fault."""

    asked: list[str] = field(default_factory=list)

    def add(self, row: CallRow) -> None:
        raise RuntimeError("fault in the logs")


async def test_money_comes_first() -> None:
    """A fault in the logs loses a row, and no charge."""
    services = governed()
    services.logs = BrokenLogs()
    made = await calls.on_its_way(calls.call(body=calls.chat(max_tokens=100)), services)
    with pytest.raises(RuntimeError):
        chain.end(made, services, outcomes.CLIENT_LEFT)
    assert ledger_of(services).settlements[0].cost_nanos == 65_100


async def test_the_end_may_come_twice() -> None:
    services = governed()
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    for _ in range(2):
        chain.end(made, services, outcomes.CLIENT_LEFT)
    assert isinstance(services.logs, RecordingLogs)
    assert (len(ledger_of(services).settlements), len(services.logs.rows)) == (1, 1)


async def test_the_key_is_gone_when_the_answer_begins() -> None:
    services = governed()
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    calls.answered(made)
    chain.answer(made, services)
    assert made.flow.request.headers["authorization"] == "[redacted]"
    assert made.reader is not None


async def test_the_key_is_gone_too_when_no_answer_came() -> None:
    """A viewer keeps the flow of a call that broke before its answer."""
    services = governed()
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    chain.end(made, services, outcomes.UPSTREAM_FAILED)
    assert "secret" not in str(made.flow.request.headers.fields)


@pytest.mark.parametrize("watched", [True, False])
async def test_labels_are_for_viewers(watched: bool) -> None:
    services = replace(governed(), watched=watched)
    made = await calls.on_its_way(calls.call(body=calls.chat()), services)
    chain.end(made, services, outcomes.CLIENT_LEFT)
    assert bool(made.flow.comment) is watched


@pytest.mark.parametrize(("policy", "refused"), [("block", True), ("allow", False)])
async def test_background_responses_are_not_free(policy: str, refused: bool) -> None:
    """Their answer is collected by other requests: under a hard budget they are refused, else charged at the hold."""
    services = calls.services(calls.snapshot({KEY: calls.virtual_key(caps=(calls.cap(),))}), unmetered=policy)
    body = b'{"model":"gpt-4o-mini","input":"hello","background":true,"max_output_tokens":1000}'
    made = calls.call("/openai/v1/responses", body=body, headers={"x-bf-vk": KEY})
    chain.head(made, services, "origin", None)
    await chain.body(made, services)
    assert (made.refusal is not None and made.refusal.type == "unmetered_endpoint") is refused
    if refused:
        return
    made.sent = True
    response = calls.answered(made, content=b'{"id":"resp_1","status":"queued","usage":null}')
    assert response.status_code == 200
    chain.answer(made, services)
    chain.end(made, services, "complete")
    assert (made.estimated, made.reading.usage is not None and made.reading.usage.output_tokens) == (True, 1000)

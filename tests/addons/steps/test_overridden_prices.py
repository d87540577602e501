"""One call under a pricing override, from bound to posting: both are made with the same price, whatever changes meanwhile."""

import json
from dataclasses import replace

import pytest

from addons.call import Call
from addons.outcomes import COMPLETE
from addons.services import Services
from addons.steps.estimate import estimate
from addons.steps.read import read
from addons.steps.route import route
from addons.steps.settle import settle
from store.config_store.snapshot import ProviderKey
from store.ledger.types import Granted
from store.prices.patch import compile_patch
from store.prices.scoped import ScopedPatch, ScopedPrices
from store.usage import Reading, Usage
from tests.support import calls

CHAT, MESSAGES, EMBED = "/openai/v1/chat/completions", "/anthropic/v1/messages", "/openai/v1/embeddings"


def under(*overrides: ScopedPatch) -> Services:
    """Services whose governance has these overrides."""
    return calls.services(replace(calls.snapshot(), prices=ScopedPrices(overrides)))


def override(
    pattern: str, operation: str = "chat_completion", *, only_input: bool = False, name: str = "ours", **scope: str
) -> ScopedPatch:
    """$1 in and $2 out per million tokens: 1,000 and 2,000 nano-dollars a token."""
    prices = [("input_cost_per_token", "0.000001"), ("output_cost_per_token", "0.000002")]
    patch = compile_patch(f"override {name}", prices[: 1 if only_input else 2], output_is_nothing=operation == "embedding")
    return ScopedPatch(patch, pattern, frozenset({operation}), pattern.endswith("*"), **scope)


def estimated(services: Services, body: bytes, path: str = CHAT, **fields: object) -> Call:
    made = calls.call(path, body=body)
    route(made, services, "origin", None)
    read(made, services)
    assert made.refusal is None
    made.virtual_key = calls.virtual_key()
    for name, value in fields.items():
        setattr(made, name, value)
    estimate(made, services, ())
    return made


def posted(made: Call, services: Services, usage: Usage) -> tuple[int, str]:
    made.hold, made.sent = Granted(made.id, 10**9, False, ()), True
    calls.answered(made)

    class Reported:
        def reading(self) -> Reading:
            return Reading(usage=usage, usage_is_final=True, model="gpt-4o-mini-2024-07-18")

    made.reader = Reported()  # type: ignore[assignment]
    settle(made, services, COMPLETE)
    return made.cost_nanos, made.price_source


def test_bound_and_posting_have_the_same_price() -> None:
    """35 tokens in at most and 100 out: 35 × 1,000 + 100 × 2,000. Reported: 12 in, 48 out."""
    services = under(override("gpt-4o-mini"))
    made = estimated(services, calls.chat(max_tokens=100))
    assert made.bound is not None and made.bound.bound_nanos(100) == 235_000
    assert posted(made, services, Usage(input_tokens=12, output_tokens=48)) == (
        12 * 1_000 + 48 * 2_000, f"override ours, {services.book.source}",
    )  # fmt: skip


def test_a_change_on_the_way_is_for_later_calls() -> None:
    services = under(override("gpt-4o-mini"))
    made = estimated(services, calls.chat(max_tokens=100))
    services.snapshots = calls.FixedSnapshots(calls.snapshot(revision=2))
    made.snapshot = services.snapshots.current
    assert posted(made, services, Usage(input_tokens=12, output_tokens=48))[0] == 12 * 1_000 + 48 * 2_000
    assert posted(estimated(services, calls.chat()), services, Usage(input_tokens=12, output_tokens=48))[0] == 30_600


def test_no_override_no_change() -> None:
    services = under(override("gpt-4o"), override("gpt-4o-mini", "embedding"), override("gpt-4o-mini", virtual_key_id="other"))
    made = estimated(services, calls.chat())
    assert posted(made, services, Usage(input_tokens=12, output_tokens=48)) == (30_600, services.book.source)


def test_a_model_nobody_knows() -> None:
    services = under(override("house-*"))
    made = estimated(services, calls.chat(model="house-7b", max_tokens=100))
    assert made.bound is not None and made.bound.bound_nanos(100) == 235_000
    assert posted(made, services, Usage(input_tokens=12, output_tokens=48)) == (12_000 + 96_000, "override ours")
    half = under(override("house-*", only_input=True))
    assert estimated(half, calls.chat(model="house-7b")).price is None


def test_vectors_need_no_output_price() -> None:
    services = under(override("house-embed", "embedding", only_input=True))
    made = estimated(services, b'{"model": "house-embed", "input": "hello"}', EMBED)
    assert made.bound is not None and made.bound.input_nanos == made.input_tokens_bound * 1_000


def test_messages_and_contents_are_operations_of_their_own() -> None:
    services = under(override("claude-haiku-4-5", "messages"))
    made = estimated(services, calls.message(), MESSAGES)
    assert made.price is not None and made.price.tiers[0].rates.output_picos == 2_000_000
    gemini = under(override("gemini-2.5-pro", "generate_content"))
    body = json.dumps({"contents": [{"parts": [{"text": "hello"}]}]}).encode()
    made = estimated(gemini, body, "/genai/v1beta/models/gemini-2.5-pro:generateContent")
    assert made.price is not None and made.price.tiers[0].rates.output_picos == 2_000_000


@pytest.mark.parametrize(
    ("key", "nanos"), [(ProviderKey("pk-1", "main", "secret"), 1_000), (ProviderKey("pk-2", "other", "secret"), 150)]
)
def test_the_provider_key_that_will_be_used_decides(key: ProviderKey, nanos: int) -> None:
    made = estimated(under(override("gpt-4o-mini", provider_key_id="pk-1")), calls.chat(), provider_key=key)
    assert made.price is not None and made.price.tiers[0].rates.input_picos == nanos * 1_000


def test_a_zero_price_is_free() -> None:
    patch = compile_patch("free", [("input_cost_per_token", "0"), ("output_cost_per_token", "0")])
    services = under(ScopedPatch(patch, "house-7b", frozenset({"chat_completion"})))
    made = estimated(services, calls.chat(model="house-7b"))
    assert made.free and made.bound is not None and made.bound.bound_nanos(10**6) == 0


def test_a_call_without_a_virtual_key_has_the_prices_for_everybody() -> None:
    services = under(override("gpt-4o-mini", virtual_key_id="vk-1", name="for one"), override("gpt-4o-mini", name="for all"))
    made = estimated(services, calls.chat(), virtual_key=None)
    assert made.price is not None and made.price.source.startswith("override for all")

"""What a key may do, and in which order its caps are gathered."""

from dataclasses import replace
from typing import Any

import pytest

from addons.call import Call, State
from addons.steps.authorize import allows, authorize, caps_of, has_hard_money_cap
from addons.steps.route import route
from store.config_store.snapshot import ANY, ModelCaps, ModelLimit, ProviderConfig, VirtualKey
from store.ledger.types import Enforcement, Unit
from tests.support import calls
from tests.support.calls import NOW_MS, cap


def authorized(key: VirtualKey | None, model: str = "gpt-4o-mini", path: str = "/openai/v1/chat/completions") -> Call:
    """A call of this key for this model after authorize."""
    services = calls.services()
    made = calls.call(path)
    route(made, services, "origin", None)
    made.virtual_key, made.model = key, model
    authorize(made, services)
    return made


def refusal_type(made: Call) -> str:
    return made.refusal.type if made.refusal else ""


def key(**config: Any) -> VirtualKey:
    values: dict[str, Any] = {"id": "pc-1", "provider": "openai", "allowed_models": (ANY,)}
    return calls.virtual_key(provider_configs=(ProviderConfig(**(values | config)),))


def test_an_active_key_passes() -> None:
    made = authorized(key())
    assert (made.refusal, made.state) == (None, State.AUTHORIZED)
    assert made.provider_config is not None and made.provider_config.id == "pc-1"


def test_without_a_key_there_is_nothing_to_forbid() -> None:
    assert authorized(None).refusal is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"is_active": False}, "virtual_key_blocked"),
        ({"expires_at_ms": NOW_MS - 1}, "virtual_key_blocked"),
        ({"expires_at_ms": NOW_MS}, "virtual_key_blocked"),
        ({"expires_at_ms": NOW_MS + 1}, ""),
        ({"provider_configs": ()}, "provider_blocked"),
    ],
)
def test_keys_that_are_switched_off_expired_or_empty(fields: dict[str, Any], expected: str) -> None:
    made = authorized(calls.virtual_key(**fields))
    assert refusal_type(made) == expected
    assert made.refusal is None or (made.refusal.status == 403 and not made.refusal.transient)


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        ({"provider": "anthropic"}, "gpt-4o-mini", "provider_blocked"),
        ({"provider": ANY}, "gpt-4o-mini", ""),
        ({"allowed_models": ()}, "gpt-4o-mini", "model_blocked"),
        ({"allowed_models": ("gpt-4o",)}, "gpt-4o-mini", "model_blocked"),
        ({"allowed_models": ("gpt-4o*",)}, "gpt-4o-mini", ""),
        ({"allowed_models": ("gpt-4o-mini",)}, "GPT-4O-MINI", ""),
        ({"blacklisted_models": ("gpt-4o",)}, "gpt-4o-2024-08-06", "model_blocked"),
        ({"blacklisted_models": ("gpt-4o",)}, " GPT-4o ", "model_blocked"),
        ({"blacklisted_models": ("openai/gpt-4o",)}, "gpt-4o", "model_blocked"),
        ({"blacklisted_models": ("gpt-4o-mini",)}, "gpt-4o-mini", "model_blocked"),
        ({"blacklisted_models": ("*-mini",)}, "gpt-4o-mini", "model_blocked"),
        ({"blacklisted_models": (ANY,)}, "gpt-4o", "model_blocked"),
    ],
)
def test_lists_of_providers_and_models(config: dict[str, Any], model: str, expected: str) -> None:
    made = authorized(key(**config), model)
    assert refusal_type(made) == expected
    assert made.refusal is None or made.refusal.status == 403


def test_the_block_list_wins() -> None:
    assert not allows(ProviderConfig("pc", ANY, allowed_models=("gpt-4o",), blacklisted_models=("gpt-*",)), "gpt-4o")


def test_the_first_config_that_allows_the_model_is_charged() -> None:
    """Two configs of one provider: the one that lists the model, not the one that stands first."""
    small = ProviderConfig("pc-small", "openai", allowed_models=("gpt-4o-mini",))
    large = ProviderConfig("pc-large", "openai", allowed_models=("gpt-4o",))
    made = authorized(calls.virtual_key(provider_configs=(small, large)), "gpt-4o")
    assert made.provider_config is large


def test_paths_without_a_model_need_a_config_of_the_provider_only() -> None:
    made = authorized(key(allowed_models=()), model="")
    assert (made.refusal, made.provider_config is not None) == (None, True)


def test_a_second_look_forgets_the_config_of_the_first() -> None:
    """After `stale` the model may not be allowed any more: the old config's caps must not stay."""
    made = authorized(key())
    made.virtual_key = key(allowed_models=())
    authorize(made, calls.services())
    assert (refusal_type(made), made.provider_config) == ("model_blocked", None)


def limit(cap_id: str, model_name: str, provider: str | None = None) -> ModelLimit:
    return ModelLimit(f"mc-{cap_id}", model_name, provider, (cap(cap_id),))


def test_caps_stand_narrowest_first() -> None:
    """The order in which refusals name them: run, provider config, model inside the key, key, team, customer, provider, model."""
    config = ProviderConfig("pc-1", "openai", allowed_models=(ANY,), caps=(cap("config"),))
    inside = (limit("key-any", ANY), limit("key-model", "gpt-4o-mini"), limit("key-other", "gpt-4o"))
    owner = calls.virtual_key(
        provider_configs=(config,), run_caps=(cap("run"),), caps=(cap("hour"), cap("day")), team_caps=(cap("team"),),
        customer_caps=(cap("customer"),), model_caps=ModelCaps.of(inside),
    )  # fmt: skip
    openai = replace(calls.snapshot().providers["openai"], caps=(cap("provider"),))
    models = ModelCaps.of(
        [
            limit("any-model", ANY), limit("minis", "*-mini"), limit("model", "gpt-4o-mini"), limit("other-model", "gpt-4o"),
            limit("elsewhere", "gpt-4o-mini", "azure"), limit("here", "gpt-4o-mini", "openai"), limit("any-here", ANY, "openai"),
        ]
    )  # fmt: skip
    services = calls.services(calls.snapshot(providers={"openai": openai}, model_caps=models))
    made = calls.call()
    route(made, services, "origin", None)
    made.virtual_key, made.model = owner, "gpt-4o-mini"
    authorize(made, services)
    assert [found.id for found in caps_of(made)] == [
        "run", "config", "key-model", "key-any", "hour", "day", "team", "customer", "provider",
        "here", "model", "minis", "any-here", "any-model",
    ]  # fmt: skip


def test_without_a_key_the_deployments_caps_still_hold() -> None:
    services = calls.services(calls.snapshot(model_caps=ModelCaps.of([limit("any-model", ANY)])))
    made = calls.call()
    route(made, services, "origin", None)
    assert [found.id for found in caps_of(made)] == ["any-model"]


@pytest.mark.parametrize(
    ("unit", "enforcement", "expected"),
    [
        (Unit.USD, Enforcement.HARD, True),
        (Unit.USD, Enforcement.SOFT, False),
        (Unit.USD, Enforcement.OBSERVE, False),
        (Unit.TOKENS, Enforcement.HARD, False),
    ],
)
def test_only_hard_money_caps_promise_to_hold(unit: Unit, enforcement: Enforcement, expected: bool) -> None:
    assert has_hard_money_cap((cap(unit=unit, enforcement=enforcement),)) is expected

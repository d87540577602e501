"""Governance objects as JSON values in Bifrost's shapes, with what is ours beside it. Pure; money comes out as Decimal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from store.clock import iso_utc
from store.config_store.model_owners import scope_of, shown_in
from store.config_store.read_groups import Member
from store.config_store.records import (
    GroupRecord,
    ModelConfigRecord,
    ProviderConfigRecord,
    ProviderKeyRecord,
    ProviderRecord,
    VirtualKeyRecord,
)
from store.config_store.snapshot import VirtualKey
from store.ledger.history import PostRecord
from store.ledger.types import Cap, CapState, Scope, Unit
from store.money import usd_from_nanos

Json = dict[str, Any]
States = Mapping[tuple[Scope, str], Sequence[CapState]]
"""The caps of each owner with their sums."""

_OWNER_FIELD = {
    Scope.VIRTUAL_KEY: "virtual_key_id",
    Scope.PROVIDER_CONFIG: "provider_config_id",
    Scope.TEAM: "team_id",
    Scope.CUSTOMER: "customer_id",
    Scope.MODEL: "model_config_id",
    Scope.VIRTUAL_KEY_MODEL: "model_config_id",
}


def by_owner(states: Iterable[CapState]) -> dict[tuple[Scope, str], list[CapState]]:
    """States gathered by whom their caps bind."""
    gathered: dict[tuple[Scope, str], list[CapState]] = {}
    for state in states:
        gathered.setdefault((state.cap.scope, state.cap.scope_id), []).append(state)
    return gathered


def time_json(at_ms: int | None) -> str | None:
    """RFC 3339 in UTC, or null."""
    return None if at_ms is None else iso_utc(at_ms)


def budget_json(state: CapState) -> Json:
    """A budget with its sums at one instant. Amounts are USD."""
    cap = state.cap
    owner = _OWNER_FIELD.get(cap.scope)
    made: Json = {
        "id": cap.id,
        "name": cap.name,
        "max_limit": usd_from_nanos(cap.limit),
        "reset_duration": cap.window,
        "calendar_aligned": cap.calendar_aligned,
        "timezone": cap.timezone,
        "reset_config": {"quarter_start_month": cap.quarter_start_month} if cap.quarter_start_month != 1 else None,
        "enforcement": cap.enforcement.value,
        "strict": cap.strict,
        "carry_over": cap.carry_over,
        "current_usage": usd_from_nanos(state.used),
        "held": usd_from_nanos(state.held),
        "carried": usd_from_nanos(state.carried),
        "override": raise_json(state),
        "effective_max_limit": usd_from_nanos(state.limit),
        "remaining": usd_from_nanos(state.remaining),
        "last_reset": time_json(cap.created_ms if state.window_start_ms is None else state.window_start_ms),
        "resets_at": time_json(state.resets_at_ms),
        "scope": cap.scope.value,
        "scope_id": cap.scope_id,
        "scope_name": cap.scope_name,
        "virtual_key_id": None,
        "provider_config_id": None,
        "team_id": None,
        "customer_id": None,
        "model_config_id": None,
        "created_at": time_json(cap.created_ms),
    }
    if owner is not None:
        made[owner] = cap.scope_id
    return made


def raise_json(state: CapState) -> Json | None:
    """The raise in force, or null. The amount is USD."""
    raised = state.raised
    if raised is None:
        return None
    return {
        "amount": usd_from_nanos(raised.amount),
        "since": time_json(raised.from_ms),
        "until": time_json(raised.until_ms),
        "reason": raised.reason,
    }


def unconfirmed_json(record: PostRecord, cap_names: Mapping[str, str]) -> Json:
    """A call that waits for somebody's word. `cost` and `tokens` are what it was posted at."""
    facts = record.facts
    return {
        "call_id": record.call_id,
        "held_at": time_json(record.held_at_ms),
        "posted_at": time_json(record.at_ms),
        "cost": usd_from_nanos(record.cost_nanos),
        "tokens": record.tokens,
        "note": record.note,
        "provider": facts.provider,
        "model": facts.model,
        "virtual_key_id": facts.virtual_key_id,
        "virtual_key_name": facts.virtual_key_name,
        "team_id": facts.team_id,
        "customer_id": facts.customer_id,
        "run_id": facts.run_id,
        "caps": [{"id": cap_id, "name": cap_names.get(cap_id, "")} for cap_id in record.cap_ids],
    }


def cap_json(state: CapState) -> Json:
    """Any cap: a budget in USD, others as counts."""
    if state.cap.unit is Unit.USD:
        return {**budget_json(state), "unit": "usd"}
    return {
        "id": state.cap.id,
        "name": state.cap.name,
        "unit": state.cap.unit.value,
        "max_limit": state.cap.limit,
        "reset_duration": state.cap.window,
        "current_usage": state.used,
        "held": state.held,
        "remaining": state.remaining,
        "enforcement": state.cap.enforcement.value,
        "last_reset": time_json(state.window_start_ms),
        "resets_at": time_json(state.resets_at_ms),
        "scope": state.cap.scope.value,
        "scope_id": state.cap.scope_id,
        "scope_name": state.cap.scope_name,
    }


def rate_limit_json(states: Sequence[CapState]) -> Json | None:
    """An owner's limits in tokens, requests and parallel calls as one object; None when it has none."""
    counted: dict[Unit, CapState] = {state.cap.unit: state for state in states if state.cap.unit is not Unit.USD}
    if not counted:
        return None
    made: Json = {"id": min(state.cap.id for state in counted.values())}
    for unit, prefix in ((Unit.TOKENS, "token"), (Unit.REQUESTS, "request")):
        state = counted.get(unit)
        made[f"{prefix}_max_limit"] = state.cap.limit if state else None
        made[f"{prefix}_reset_duration"] = state.cap.window if state else None
        made[f"{prefix}_current_usage"] = state.used if state else 0
        made[f"{prefix}_held"] = state.held if state else 0
        made[f"{prefix}_last_reset"] = time_json(state.window_start_ms) if state else None
        made[f"{prefix}_resets_at"] = time_json(state.resets_at_ms) if state else None
    if (parallel := counted.get(Unit.CONCURRENT)) is not None:
        made["concurrent_max_limit"] = parallel.cap.limit
        made["concurrent_current"] = parallel.held
    made["enforcement"] = next(iter(counted.values())).cap.enforcement.value
    return made


def caps_json(states: States, scope: Scope, scope_id: str) -> Json:
    """`budgets` and `rate_limit` of one owner."""
    own = states.get((scope, scope_id), ())
    return {
        "budgets": [budget_json(state) for state in own if state.cap.unit is Unit.USD],
        "rate_limit": rate_limit_json(own),
    }


def virtual_key_json(
    record: VirtualKeyRecord,
    states: States,
    teams: Mapping[str, GroupRecord],
    customers: Mapping[str, GroupRecord],
    provider_keys: Mapping[str, Sequence[ProviderKeyRecord]],
    models: Sequence[ModelConfigRecord],
    now_ms: int,
) -> Json:
    """A virtual key. `value` is what may be shown: the value itself when the store keeps it, else its hint."""
    team = teams.get(record.team_id or "")
    customer = customers.get(record.customer_id or "")
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "value": record.value if record.value is not None else record.hint,
        "value_hint": record.hint,
        "is_active": record.is_active,
        "expires_at": time_json(record.expires_at_ms),
        "previous_value_until": time_json(record.previous_until_ms if record.has_previous(now_ms) else None),
        "provider_configs": [
            _config_json(config, states, provider_keys, shown)
            for config, shown in zip(record.provider_configs, shown_in(record.provider_configs, models), strict=True)
        ],
        "team_id": record.team_id,
        "customer_id": record.customer_id,
        "team": {"id": team.id, "name": team.name, "customer_id": team.customer_id} if team else None,
        "customer": {"id": customer.id, "name": customer.name} if customer else None,
        **caps_json(states, Scope.VIRTUAL_KEY, record.id),
        "calendar_aligned": record.calendar_aligned,
        "created_at": time_json(record.created_ms),
        "updated_at": time_json(record.updated_ms),
    }


def group_json(
    record: GroupRecord,
    scope: Scope,
    states: States,
    keys: Sequence[Member],
    *,
    teams: Sequence[Member] = (),
    customer: GroupRecord | None = None,
) -> Json:
    """A team with its customer, or a customer with its teams; `keys` belong to it themselves."""
    made: Json = {"id": record.id, "name": record.name}
    if scope is Scope.TEAM:
        made["customer_id"] = record.customer_id
        made["customer"] = {"id": customer.id, "name": customer.name} if customer else None
    else:
        made["teams"] = [{"id": team.id, "name": team.name} for team in teams]
    return {
        **made,
        **caps_json(states, scope, record.id),
        "virtual_keys": [{"id": key.id, "name": key.name} for key in keys],
        "virtual_key_count": len(keys),
        "calendar_aligned": record.calendar_aligned,
        "created_at": time_json(record.created_ms),
        "updated_at": time_json(record.updated_ms),
    }


Fault = Callable[[ProviderKeyRecord], str | None]
"""Why a provider key cannot be used now (`build.fault_of`)."""


def provider_json(record: ProviderRecord, builtin: Mapping[str, str], fault: Fault, *, configured: bool) -> Json:
    """A provider; header values and key values are never shown."""
    return {
        "name": record.name,
        "network_config": {
            "base_url": record.base_url,
            "extra_headers": {name: "…" for name, _ in record.extra_headers},
        },
        "custom_provider_config": {"base_provider_type": record.base_provider} if record.base_provider else None,
        "hosts": record.hosts,
        "keys": [provider_key_json(key, fault) for key in record.keys],
        "configured": configured,
        "built_in": record.name in builtin,
        "provider_status": "active",
    }


def provider_key_json(record: ProviderKeyRecord, fault: Fault) -> Json:
    """A provider key with its hint in place of its value."""
    reason = fault(record)
    return {
        "id": record.id,
        "name": record.name,
        "provider": record.provider,
        "value": record.hint,
        "models": record.models,
        "blacklisted_models": record.blacklisted_models,
        "weight": record.weight,
        "status": "active" if reason is None else "unusable",
        "status_reason": reason,
        "created_at": time_json(record.created_ms),
        "updated_at": time_json(record.updated_ms),
    }


def quota_json(key: VirtualKey, states: Mapping[str, CapState], usage: Callable[[CapState], list[Json]] | None = None) -> Json:
    """What a virtual key's holder may know: its own caps, those of its provider configs and of its model configs, and their sums.

    `states` by cap id; `usage` gives the `per_model_usage` of a budget's window, where logs are kept.
    """

    def budgets(caps: Sequence[Cap]) -> list[Json]:
        found = [states[cap.id] for cap in caps if cap.unit is Unit.USD and cap.id in states]
        return [{**budget_json(state), **({"per_model_usage": usage(state)} if usage else {})} for state in found]

    def limits(caps: Sequence[Cap]) -> Json | None:
        return rate_limit_json([states[cap.id] for cap in caps if cap.id in states])

    return {
        "virtual_key_name": key.name,
        "is_active": key.is_active,
        "budgets": budgets(key.caps),
        "rate_limit": limits(key.caps),
        "provider_configs": [
            {"provider": config.provider, "budgets": budgets(config.caps), "rate_limit": limits(config.caps)}
            for config in key.provider_configs
        ],
        "model_configs": [
            {
                "model_name": limit.model_name,
                "provider": limit.provider,
                "budgets": budgets(limit.caps),
                "rate_limit": limits(limit.caps),
            }
            for limit in key.model_caps.limits
        ],
    }


def model_budget_json(record: ModelConfigRecord, states: States) -> Json:
    """A model config inside a virtual key, as its provider config shows it."""
    return {
        "id": record.id,
        "model_name": record.model_name,
        "provider": record.provider,
        **caps_json(states, scope_of(record), record.id),
        "calendar_aligned": record.calendar_aligned,
    }


def model_config_json(record: ModelConfigRecord, states: States, key_name: str | None) -> Json:
    """A model config with its caps; `key_name` is that of its virtual key, where there is one."""
    caps = caps_json(states, scope_of(record), record.id)
    return {
        "id": record.id,
        "model_name": record.model_name,
        "provider": record.provider,
        "scope": record.scope,
        "scope_id": record.scope_id,
        "scope_name": key_name,
        "calendar_aligned": record.calendar_aligned,
        "budget_id": caps["budgets"][0]["id"] if caps["budgets"] else None,
        "rate_limit_id": caps["rate_limit"]["id"] if caps["rate_limit"] else None,
        **caps,
        "created_at": time_json(record.created_ms),
        "updated_at": time_json(record.updated_ms),
    }


def _config_json(
    record: ProviderConfigRecord,
    states: States,
    provider_keys: Mapping[str, Sequence[ProviderKeyRecord]],
    models: Sequence[ModelConfigRecord],
) -> Json:
    offered = provider_keys.get(record.provider, ())
    everything = record.key_ids == ("*",)
    return {
        "id": record.id,
        "virtual_key_id": record.virtual_key_id,
        "provider": record.provider,
        "weight": record.weight,
        "allowed_models": record.allowed_models,
        "blacklisted_models": record.blacklisted_models,
        "key_ids": record.key_ids,
        "allow_all_keys": everything,
        "keys": [{"id": key.id, "name": key.name} for key in offered if not everything and {key.id, key.name} & {*record.key_ids}],
        **caps_json(states, Scope.PROVIDER_CONFIG, record.id),
        "model_budgets": [model_budget_json(model, states) for model in models],
        "calendar_aligned": record.calendar_aligned,
    }

"""Rows of the governance tables to records and back: column lists, and lists of names as JSON text."""

import json
from collections.abc import Sequence
from typing import Any

from store.config_store.records import (
    GroupRecord,
    ModelConfigRecord,
    PricingOverrideRecord,
    ProviderConfigRecord,
    ProviderKeyRecord,
    ProviderRecord,
    RoutingRuleRecord,
    RoutingTarget,
    RunRecord,
    VirtualKeyRecord,
)

PROVIDER = "name, base_provider, base_url, hosts, extra_headers, created_ms, updated_ms"
PROVIDER_KEY = (
    "id, provider, name, secret, sealed, hint, models, blacklisted_models, weight, created_ms, updated_ms"  # in this order
)
VIRTUAL_KEY = (
    "id, name, value, value_hash, hint, description, is_active, expires_at_ms, team_id, customer_id, calendar_aligned, "
    "created_ms, updated_ms, previous_hash, previous_until_ms"
)
PROVIDER_CONFIG = "id, virtual_key_id, provider, weight, allowed_models, blacklisted_models, key_ids, calendar_aligned"
TEAM = "id, name, customer_id, calendar_aligned, created_ms, updated_ms"
CUSTOMER = "id, name, NULL, calendar_aligned, created_ms, updated_ms"
MODEL_CONFIG = "id, model_name, provider, scope, scope_id, calendar_aligned, created_ms, updated_ms"
ROUTING_RULE = (
    "id, name, cel_expression, targets, description, enabled, chain_rule, fallbacks, scope, scope_id, query, priority, "
    "created_ms, updated_ms"
)
PRICING_OVERRIDE = (
    "id, name, scope_kind, match_type, pattern, request_types, patch, virtual_key_id, provider_id, provider_key_id, "
    "created_ms, updated_ms"
)
RUN = "id, virtual_key_id, value_hash, hint, budget_nanos, created_ms, expires_at_ms"

_KNOWN_LISTS: dict[str, tuple[str, ...]] = {"[]": (), '["*"]': ("*",)}


def names_text(names: Sequence[str]) -> str:
    """A list of names as the store keeps it."""
    return json.dumps(list(names), ensure_ascii=False, separators=(",", ":"))


def names_of(text: str) -> tuple[str, ...]:
    """The list of names in a column."""
    known = _KNOWN_LISTS.get(text)  # nearly every row: ten thousand of them are read for a snapshot
    return known if known is not None else tuple(json.loads(text))


def provider_record(row: Sequence[Any], keys: tuple[ProviderKeyRecord, ...] = ()) -> ProviderRecord:
    """From columns PROVIDER."""
    headers = tuple(json.loads(row[4]).items())
    return ProviderRecord(row[0], row[1], row[2], names_of(row[3]), headers, row[5], row[6], keys)


def provider_key_record(row: Sequence[Any]) -> ProviderKeyRecord:
    """From columns PROVIDER_KEY."""
    return ProviderKeyRecord(
        row[0], row[1], row[2], row[3], bool(row[4]), row[5], names_of(row[6]), names_of(row[7]), row[8], row[9], row[10]
    )


def virtual_key_record(row: Sequence[Any], configs: tuple[ProviderConfigRecord, ...] = ()) -> VirtualKeyRecord:
    """From columns VIRTUAL_KEY."""
    return VirtualKeyRecord(
        row[0], row[1], row[2], row[3], row[4], row[5], bool(row[6]), row[7], row[8], row[9], bool(row[10]), row[11], row[12],
        row[13], row[14], configs,
    )  # fmt: skip


def provider_config_record(row: Sequence[Any]) -> ProviderConfigRecord:
    """From columns PROVIDER_CONFIG."""
    return ProviderConfigRecord(row[0], row[1], row[2], row[3], names_of(row[4]), names_of(row[5]), names_of(row[6]), bool(row[7]))


def group_record(row: Sequence[Any]) -> GroupRecord:
    """From columns TEAM or CUSTOMER."""
    return GroupRecord(row[0], row[1], row[2], bool(row[3]), row[4], row[5])


def run_record(row: Sequence[Any]) -> RunRecord:
    """From columns RUN."""
    return RunRecord(*row)


def model_config_record(row: Sequence[Any]) -> ModelConfigRecord:
    """From columns MODEL_CONFIG."""
    return ModelConfigRecord(row[0], row[1], row[2] or None, row[3], row[4] or None, bool(row[5]), row[6], row[7])


def routing_rule_record(row: Sequence[Any]) -> RoutingRuleRecord:
    """From columns ROUTING_RULE."""
    targets = tuple(RoutingTarget(**target) for target in json.loads(row[3]))
    return RoutingRuleRecord(
        row[0], row[1], row[2], targets, row[4], bool(row[5]), bool(row[6]), names_of(row[7]), row[8], row[9] or None, row[10],
        row[11], row[12], row[13],
    )  # fmt: skip


def pricing_override_record(row: Sequence[Any]) -> PricingOverrideRecord:
    """From columns PRICING_OVERRIDE."""
    patch = tuple(json.loads(row[6]).items())
    return PricingOverrideRecord(
        row[0], row[1], row[2], row[3], row[4], names_of(row[5]), patch, row[7] or None, row[8] or None, row[9] or None, row[10],
        row[11],
    )  # fmt: skip

"""Each thing of the governance as the document somebody would write for it: no sums, no times, no secrets, defaults left out.

Audit rows keep these before and after a change, entity tags are made of them, exports hold them. The shapes are those of
`specs.py`, so a document can be read back with the spec of its kind. `value` of a key is its hint, which says "unchanged".
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from store.clock import iso_utc
from store.config_store import read
from store.config_store.client_config import client_document
from store.config_store.json_text import dumps
from store.config_store.make_caps import Owner, can_align, default_name
from store.config_store.model_owners import owner_of, shown_in
from store.config_store.read import ScopeKey
from store.config_store.read_models import model_configs_of
from store.config_store.read_prompts import PromptRecord, PromptVersionRecord, find_prompt
from store.config_store.records import (
    GroupRecord,
    ModelConfigRecord,
    PricingOverrideRecord,
    ProviderKeyRecord,
    ProviderRecord,
    RoutingRuleRecord,
    VirtualKeyRecord,
)
from store.config_store.snapshot import ANY
from store.config_store.specs import BudgetSpec, RateLimitSpec, ResetConfig
from store.config_store.specs_prices import is_large
from store.database import Connection
from store.ledger.types import Cap, Scope, Unit
from store.money import usd_from_nanos

HIDDEN = "…"
"""In place of a header's value, which may be a credential."""

Json = dict[str, Any]
Caps = Mapping[ScopeKey, Sequence[Cap]]


def document(connection: Connection, ledger: Connection, kind: str, id_or_name: str) -> Json | None:
    """The document of one thing as it is now, with its id; None when there is no such thing. Raises KeyError for other kinds."""
    return _KINDS[kind](connection, ledger, id_or_name)


def entity_tag(made: Json) -> str:
    """The strong entity tag (RFC 9110 section 8.8.3) of a document: it changes with the configuration, not with what is spent."""
    return '"' + hashlib.sha256(dumps(made)).hexdigest()[:20] + '"'


def budget_document(cap: Cap, owner: Owner) -> Json:
    """A cap in money, as `budgets[]` of its owner would say it."""
    spec = BudgetSpec(
        id=cap.id,
        name=None if cap.name == default_name(owner, Unit.USD, cap.window) else cap.name,
        max_limit=usd_from_nanos(cap.limit),
        reset_duration=cap.window,
        reset_config=ResetConfig(quarter_start_month=cap.quarter_start_month) if cap.quarter_start_month != 1 else None,
        calendar_aligned=_said_alignment(cap, owner),
        timezone=cap.timezone,
        enforcement=cap.enforcement.value,
        strict=cap.strict,
        carry_over=cap.carry_over,
    )
    return spec.model_dump(exclude_defaults=True)


def rate_limit_document(caps: Sequence[Cap], owner: Owner) -> Json | None:
    """An owner's limits in tokens, requests and parallel calls as one `rate_limit`; None when it has none."""
    by_unit = {cap.unit: cap for cap in caps if cap.unit is not Unit.USD}
    if not by_unit:
        return None
    tokens, requests, parallel = (by_unit.get(unit) for unit in (Unit.TOKENS, Unit.REQUESTS, Unit.CONCURRENT))
    first = tokens or requests or next(iter(by_unit.values()))
    spec = RateLimitSpec(
        token_max_limit=tokens.limit if tokens else None,
        token_reset_duration=tokens.window if tokens else None,
        request_max_limit=requests.limit if requests else None,
        request_reset_duration=requests.window if requests else None,
        concurrent_max_limit=parallel.limit if parallel else None,
        calendar_aligned=None if first.unit is Unit.CONCURRENT else _said_alignment(first, owner),
        timezone=first.timezone,
        enforcement=first.enforcement.value,
    )
    return spec.model_dump(exclude_defaults=True)


def limits_document(caps: Caps, owner: Owner) -> Json:
    """`budgets`, `rate_limit` and `calendar_aligned` of an owner, each left out where there is none."""
    own = caps.get((owner.scope, owner.id), ())
    return _kept(
        budgets=[budget_document(cap, owner) for cap in own if cap.unit is Unit.USD],
        rate_limit=rate_limit_document(own, owner),
        calendar_aligned=owner.calendar_aligned,
    )


def provider_document(record: ProviderRecord) -> Json:
    """As `providers.<name>`, with its name."""
    return {
        "name": record.name,
        **_kept(
            network_config=_kept(base_url=record.base_url, extra_headers={name: HIDDEN for name, _ in record.extra_headers}),
            custom_provider_config=_kept(base_provider_type=record.base_provider),
            hosts=list(record.hosts),
            keys=[provider_key_document(key) for key in record.keys],
        ),
    }


def provider_key_document(record: ProviderKeyRecord) -> Json:
    """As `providers.<name>.keys[]`."""
    made: Json = {"id": record.id, "name": record.name, "value": record.hint}
    if record.models != (ANY,):
        made["models"] = list(record.models)
    if record.weight != 1.0:
        made["weight"] = record.weight
    return {**made, **_kept(blacklisted_models=list(record.blacklisted_models))}


def group_document(record: GroupRecord, scope: Scope, caps: Caps) -> Json:
    """A team or a customer."""
    owner = Owner(scope, record.id, record.name, record.calendar_aligned)
    return {"id": record.id, "name": record.name, **_kept(customer_id=record.customer_id), **limits_document(caps, owner)}


def virtual_key_document(record: VirtualKeyRecord, caps: Caps, models: Sequence[ModelConfigRecord] = ()) -> Json:
    """A virtual key with its provider configs, and with those of its model configs that shall stand in them."""
    shown = shown_in(record.provider_configs, models)
    made: Json = {"id": record.id, "name": record.name, "value": record.hint}
    if not record.is_active:
        made["is_active"] = False
    return {
        **made,
        **_kept(
            description=record.description,
            expires_at=None if record.expires_at_ms is None else iso_utc(record.expires_at_ms),
            team_id=record.team_id,
            customer_id=record.customer_id,
        ),
        **limits_document(caps, Owner(Scope.VIRTUAL_KEY, record.id, record.name, record.calendar_aligned)),
        **_kept(provider_configs=[_config_document(record, place, caps, shown[place]) for place in range(len(shown))]),
    }


def model_config_document(record: ModelConfigRecord, caps: Caps) -> Json:
    """As `governance.model_configs[]`."""
    made = {"id": record.id, "model_name": record.model_name, **_kept(provider=record.provider)}
    if record.scope != "global":
        made |= {"scope": record.scope, "scope_id": record.scope_id}
    return {**made, **limits_document(caps, _model_owner(record, caps))}


def routing_rule_document(record: RoutingRuleRecord) -> Json:
    """As `governance.routing_rules[]`."""
    targets = [
        {**_kept(provider=target.provider, model=target.model, key_id=target.key_id), "weight": target.weight}
        for target in record.targets
    ]
    made: Json = {"id": record.id, "name": record.name, "cel_expression": record.cel_expression, "targets": targets}
    if not record.enabled:
        made["enabled"] = False
    if record.scope != "global":
        made |= {"scope": record.scope, "scope_id": record.scope_id}
    return {
        **made,
        **_kept(
            description=record.description,
            chain_rule=record.chain_rule,
            fallbacks=list(record.fallbacks),
            priority=record.priority,
        ),
    }


def prompt_document(record: PromptRecord, versions: Sequence[PromptVersionRecord] = ()) -> Json:
    """As `prompts[]`, with these versions; without any, with the number and the text of the newest."""
    told: Json = {"version": record.version, "text": record.text, **_kept(note=record.note)}
    if versions:
        told = {"versions": [{"version": row.version, "text": row.text, **_kept(note=row.note)} for row in versions]}
    return {"id": record.id, "name": record.name, **_kept(description=record.description), **told}


def pricing_override_document(record: PricingOverrideRecord) -> Json:
    """As `governance.pricing_overrides[]`."""
    return {
        "id": record.id,
        "name": record.name,
        "scope_kind": record.scope_kind,
        **_kept(
            virtual_key_id=record.virtual_key_id, provider_id=record.provider_id, provider_key_id=record.provider_key_id
        ),
        "match_type": record.match_type,
        "pattern": record.pattern,
        "request_types": list(record.request_types),
        "patch": dict(record.patch),
        **_kept(confirm_high_prices=any(is_large(name, Decimal(usd)) for name, usd in record.patch)),
    }  # fmt: skip


def _model_owner(record: ModelConfigRecord, caps: Caps) -> Owner:
    """Its name, which holds the virtual key's, is known by its caps; without caps it does not matter."""
    owner = owner_of(record)
    own = caps.get((owner.scope, record.id), ())
    return replace(owner, name=own[0].scope_name) if own else owner


def _config_document(key: VirtualKeyRecord, place: int, caps: Caps, models: Sequence[ModelConfigRecord]) -> Json:
    config = key.provider_configs[place]
    made: Json = {"id": config.id, "provider": config.provider}
    if config.weight is not None:
        made["weight"] = config.weight
    for name, said in (("allowed_models", config.allowed_models), ("key_ids", config.key_ids)):
        if said != (ANY,):
            made[name] = list(said)
    owner = Owner(Scope.PROVIDER_CONFIG, config.id, f"{key.name} at {config.provider}", config.calendar_aligned)
    made |= _kept(blacklisted_models=list(config.blacklisted_models)) | limits_document(caps, owner)
    if config.calendar_aligned != key.calendar_aligned:
        made["calendar_aligned"] = config.calendar_aligned  # absent means: as the key
    else:
        made.pop("calendar_aligned", None)
    if models:
        made["model_budgets"] = [
            {"id": model.id, "model_name": model.model_name, **limits_document(caps, _model_owner(model, caps))} for model in models
        ]
    return made


def _said_alignment(cap: Cap, owner: Owner) -> bool | None:
    """What a budget must say of its window; None where it follows from the owner."""
    return None if cap.calendar_aligned == (owner.calendar_aligned and can_align(cap.window)) else cap.calendar_aligned


def _kept(**fields: Any) -> Json:
    """The fields that say something: no nulls, false, zeros, and nothing empty."""
    return {name: value for name, value in fields.items() if value}


def _provider(connection: Connection, ledger: Connection, name: str) -> Json | None:
    record = read.provider(connection, name)
    return None if record is None else provider_document(record)


def _provider_limits(connection: Connection, ledger: Connection, name: str) -> Json | None:
    caps = {(Scope.PROVIDER, name): read.caps_of(ledger, Scope.PROVIDER, name)}
    return {"name": name, **limits_document(caps, Owner(Scope.PROVIDER, name, name))}


def _group(scope: Scope) -> Callable[[Connection, Connection, str], Json | None]:
    def made(connection: Connection, ledger: Connection, id_or_name: str) -> Json | None:
        record = (read.team if scope is Scope.TEAM else read.customer)(connection, id_or_name)
        return None if record is None else group_document(record, scope, _caps(ledger, (scope, record.id)))

    return made


def _virtual_key(connection: Connection, ledger: Connection, id_or_name: str) -> Json | None:
    record = read.virtual_key(connection, id_or_name)
    if record is None:
        return None
    models = model_configs_of(connection, [record.id]).get(record.id, ())
    owners = [(Scope.PROVIDER_CONFIG, config.id) for config in record.provider_configs]
    owners += [(Scope.VIRTUAL_KEY_MODEL, config.id) for config in models]
    return virtual_key_document(record, _caps(ledger, (Scope.VIRTUAL_KEY, record.id), *owners), models)


def _budget(connection: Connection, ledger: Connection, cap_id: str) -> Json | None:
    cap = read.cap(ledger, cap_id)
    if cap is None:
        return None
    owner = Owner(cap.scope, cap.scope_id, cap.scope_name)
    return {**budget_document(cap, owner), "name": cap.name, "scope": cap.scope.value, "scope_id": cap.scope_id}


def _prompt(connection: Connection, ledger: Connection, id_or_name: str) -> Json | None:
    record = find_prompt(connection, id_or_name)
    return None if record is None else prompt_document(record)


def _found[Record](
    records: Callable[[Connection], Sequence[Record]], made: Callable[[Record, Caps], Json], *scopes: Scope
) -> Callable[[Connection, Connection, str], Json | None]:
    def one(connection: Connection, ledger: Connection, entity_id: str) -> Json | None:
        record = next((row for row in records(connection) if row.id == entity_id), None)  # type: ignore[attr-defined]
        return None if record is None else made(record, _caps(ledger, *((scope, entity_id) for scope in scopes)))

    return one


def _caps(ledger: Connection, *owners: ScopeKey) -> Caps:
    return {owner: read.caps_of(ledger, *owner) for owner in owners}


_KINDS: Mapping[str, Callable[[Connection, Connection, str], Json | None]] = {
    "provider": _provider,
    "provider_limits": _provider_limits,
    "customer": _group(Scope.CUSTOMER),
    "team": _group(Scope.TEAM),
    "virtual_key": _virtual_key,
    "budget": _budget,
    "model_config": _found(read.model_configs, model_config_document, Scope.MODEL, Scope.VIRTUAL_KEY_MODEL),
    "routing_rule": _found(read.routing_rules, lambda record, _: routing_rule_document(record)),
    "pricing_override": _found(read.pricing_overrides, lambda record, _: pricing_override_document(record)),
    "prompt": _prompt,
    "client_config": lambda connection, ledger, _: client_document(connection),
}

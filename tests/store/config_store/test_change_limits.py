"""Limits in tokens, requests and parallel calls: every scope by every way to write them, and the caps that a call then touches."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from addons.patterns import caps_on
from store.config_store import change
from store.config_store.bootstrap import BootstrapReport
from store.config_store.build import load_snapshot
from store.config_store.read import caps_of
from store.config_store.specs import (
    CustomerSpec,
    GroupPatch,
    ProviderSpec,
    RateLimitRowSpec,
    RateLimitSpec,
    TeamSpec,
    VirtualKeyPatch,
    VirtualKeySpec,
)
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound, UserError
from store.ledger.types import Cap, Enforcement, Scope, Unit

Seeded = Callable[..., tuple[ConfigStore, BootstrapReport]]

LIMITS: dict[Unit, tuple[dict[str, Any], int, str | None]] = {
    Unit.TOKENS: ({"token_max_limit": 1_000, "token_reset_duration": "1m"}, 1_000, "1m"),
    Unit.REQUESTS: ({"request_max_limit": 7, "request_reset_duration": "1h"}, 7, "1h"),
    Unit.CONCURRENT: ({"concurrent_max_limit": 3}, 3, None),
}
OWNERS = {
    Scope.PROVIDER_CONFIG: "pc-1", Scope.VIRTUAL_KEY_MODEL: "m-2", Scope.VIRTUAL_KEY: "vk-1", Scope.TEAM: "team-1",
    Scope.CUSTOMER: "customer-1", Scope.PROVIDER: "openai", Scope.MODEL: "m-1",
}  # fmt: skip
Where = dict[Scope, dict[str, Any]]


def file(limits: Where, *, by_id: bool = False) -> dict[str, Any]:
    """A config.json with an owner in every scope; `limits` stand in them, or in rows that they name."""
    rows: list[dict[str, Any]] = []

    def given(scope: Scope) -> dict[str, Any]:
        if scope not in limits:
            return {}
        if not by_id:
            return {"rate_limit": limits[scope]}
        rows.append({"id": f"rl-{scope.value}", **limits[scope]})
        return {"rate_limit_id": f"rl-{scope.value}"}

    governance = {
        "virtual_keys": [
            {
                "id": "vk-1", "name": "ci", "team_id": "team-1", **given(Scope.VIRTUAL_KEY),
                "provider_configs": [{"id": "pc-1", "provider": "openai", **given(Scope.PROVIDER_CONFIG)}],
            }
        ],
        "teams": [{"id": "team-1", "name": "Blue", "customer_id": "customer-1", **given(Scope.TEAM)}],
        "customers": [{"id": "customer-1", "name": "Acme", **given(Scope.CUSTOMER)}],
        "providers": [{"name": "openai", **given(Scope.PROVIDER)}],
        "model_configs": [
            {"id": "m-1", "model_name": "gpt-4o", **given(Scope.MODEL)},
            {"id": "m-2", "model_name": "gpt-4o", "scope": "virtual_key", "scope_id": "ci", **given(Scope.VIRTUAL_KEY_MODEL)},
        ],
        "rate_limits": rows,
    }  # fmt: skip
    return {"providers": {"openai": {}}, "governance": governance}


def touched(store: ConfigStore) -> list[Cap]:
    """What a call of this key to this provider and model touches."""
    snapshot = load_snapshot(store, {})
    key = snapshot.virtual_keys["vk-1"]
    return [
        *key.provider_configs[0].caps, *caps_on(key.model_caps, "gpt-4o", "openai"), *key.caps, *key.team_caps,
        *key.customer_caps, *snapshot.providers["openai"].caps, *caps_on(snapshot.model_caps, "gpt-4o", "openai"),
    ]  # fmt: skip


@pytest.mark.parametrize("unit", LIMITS)
@pytest.mark.parametrize("way", ["inline", "by id", "change"])
def test_every_unit_on_every_scope(seeded: Seeded, way: str, unit: Unit) -> None:
    written, limit, window = LIMITS[unit]
    if way == "change":
        store, _ = seeded(file({}))
        for scope, owner in OWNERS.items():
            assert change.set_rate_limit(store, row(scope, owner, **written)) == (scope, owner)
    else:
        store, _ = seeded(file(dict.fromkeys(OWNERS, written), by_id=way == "by id"))
    caps = touched(store)
    assert [(cap.scope, cap.scope_id) for cap in caps] == [*OWNERS.items()]
    words = "parallel calls" if unit is Unit.CONCURRENT else f"{unit.value} per {window}"
    names = {
        Scope.PROVIDER_CONFIG: "ci at openai", Scope.VIRTUAL_KEY_MODEL: "ci on gpt-4o", Scope.VIRTUAL_KEY: "ci",
        Scope.TEAM: "Blue", Scope.CUSTOMER: "Acme", Scope.MODEL: "gpt-4o",
    }  # fmt: skip
    for cap in caps:
        assert (cap.unit, cap.limit, cap.window, cap.enforcement, cap.calendar_aligned) == (
            unit, limit, window, Enforcement.HARD, False,
        )  # fmt: skip
        assert cap.name == f"{names.get(cap.scope, OWNERS[cap.scope])} {words}"


def row(scope: Scope, scope_id: str, **fields: Any) -> RateLimitRowSpec:
    return RateLimitRowSpec.model_validate({"scope": scope.value, "scope_id": scope_id, **fields})


def test_all_scopes_at_once_in_the_order_of_refusals(seeded: Seeded) -> None:
    everything = {name: value for written, _, _ in LIMITS.values() for name, value in written.items()}
    store, _ = seeded(file(dict.fromkeys(OWNERS, everything)))
    caps = touched(store)
    assert [cap.scope for cap in caps] == [scope for scope in OWNERS for _ in LIMITS]
    assert [cap.window for cap in caps] == ["1m", "1h", None] * len(OWNERS), "the shortest window first"
    assert len({cap.id for cap in caps}) == len(caps)


@pytest.mark.parametrize("scope", [Scope.VIRTUAL_KEY, Scope.TEAM, Scope.CUSTOMER])
def test_the_owners_own_changes_carry_limits_too(store: ConfigStore, scope: Scope) -> None:
    given = {"name": "x", "rate_limit": LIMITS[Unit.REQUESTS][0]}
    wanted: dict[str, Any] = {"rate_limit": {**LIMITS[Unit.TOKENS][0], "concurrent_max_limit": 2}}
    if scope is Scope.VIRTUAL_KEY:
        owner = change.create_virtual_key(store, VirtualKeySpec.model_validate(given)).id
        patched = VirtualKeyPatch.model_validate(wanted)
        steps = [lambda: change.update_virtual_key(store, owner, patched)]
        steps.append(lambda: change.update_virtual_key(store, owner, VirtualKeyPatch.model_validate({"name": "y"})))
    else:
        make = change.create_team if scope is Scope.TEAM else change.create_customer
        spec = TeamSpec if scope is Scope.TEAM else CustomerSpec
        owner = make(store, spec.model_validate(given)).id  # type: ignore[operator]
        update = change.update_team if scope is Scope.TEAM else change.update_customer
        steps = [lambda: update(store, owner, GroupPatch.model_validate(wanted))]  # type: ignore[list-item,return-value]
        steps.append(lambda: update(store, owner, GroupPatch.model_validate({"name": "y"})))  # type: ignore[arg-type,return-value]
    seen = [limits_of(store, scope, owner)]
    for step in steps:
        step()
        seen.append(limits_of(store, scope, owner))
    assert seen == [
        [(Unit.REQUESTS, 7, "1h")],
        [(Unit.TOKENS, 1_000, "1m"), (Unit.CONCURRENT, 2, None)],
        [(Unit.TOKENS, 1_000, "1m"), (Unit.CONCURRENT, 2, None)],
    ]


def limits_of(store: ConfigStore, scope: Scope, scope_id: str) -> list[tuple[Unit, int, str | None]]:
    with store.database.read() as connection:
        return [(cap.unit, cap.limit, cap.window) for cap in caps_of(connection, scope, scope_id)]


def test_a_change_keeps_the_cap_and_leaves_budgets_alone(seeded: Seeded) -> None:
    store, _ = seeded(file({Scope.TEAM: LIMITS[Unit.REQUESTS][0]}))
    change.update_team(store, "team-1", GroupPatch.model_validate({"budgets": [{"max_limit": 5, "reset_duration": "1d"}]}))
    before = {cap.unit: cap for cap in touched(store)}
    change.set_rate_limit(store, row(Scope.TEAM, "Blue", request_max_limit=9, request_reset_duration="1h"))
    after = {cap.unit: cap for cap in touched(store)}
    assert after[Unit.REQUESTS].limit == 9 and after[Unit.REQUESTS].id == before[Unit.REQUESTS].id
    assert after[Unit.USD] == before[Unit.USD]
    change.set_rate_limit(store, row(Scope.TEAM, "team-1", request_max_limit=None))
    assert [cap.unit for cap in touched(store)] == [Unit.USD]


def test_a_run_carries_limits_of_its_own(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec.model_validate({"name": "ci", "provider_configs": [{"provider": "openai"}]}))
    limits = RateLimitSpec.model_validate({**LIMITS[Unit.REQUESTS][0], "concurrent_max_limit": 2})
    made = change.create_run(store, "ci", None, 60, limits)
    hard = {cap.unit: cap for cap in run_caps(store) if cap.enforcement is Enforcement.HARD}
    assert {unit: (cap.limit, cap.window, cap.scope_id) for unit, cap in hard.items()} == {
        Unit.REQUESTS: (7, "1h", made.id),
        Unit.CONCURRENT: (2, None, made.id),
    }
    assert len(run_caps(store)) == 4, "beside those that only watch"


def run_caps(store: ConfigStore) -> tuple[Cap, ...]:
    (key,) = (key for key in load_snapshot(store, {}).by_hash.values() if key.run_id)
    return key.run_caps


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"request_max_limit": 1}, "request_max_limit needs request_reset_duration, such as 1h"),
        ({"token_max_limit": 1}, "token_max_limit needs token_reset_duration, such as 1h"),
        ({"token_max_limit": -1, "token_reset_duration": "1m"}, "greater than or equal to 0"),
        ({"concurrent_max_limit": 2**63}, "less than or equal to"),
        ({"concurrent_max_limit": True}, "valid integer"),
        ({"request_max_limit": 1.5, "request_reset_duration": "1m"}, "valid integer"),
        ({"request_max_limit": 1, "request_reset_duration": "1"}, "not a duration"),
        ({"request_max_limit": 1, "request_reset_duration": "500ms"}, "shorter than a second"),
        ({"enforcement": "firm"}, "'hard', 'soft' or 'observe'"),
        ({"requests": 1}, "requests"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        row(Scope.TEAM, "team-1", **fields)
    assert words in str(caught.value)


def test_owners_that_cannot_be(store: ConfigStore) -> None:
    for scope in (*(set(OWNERS) - {Scope.MODEL}),):
        with pytest.raises(NotFound, match="scope_id: there is no"):
            change.set_rate_limit(store, row(scope, "nobody", concurrent_max_limit=1))
    with pytest.raises(ValidationError):
        row(Scope.RUN, "r", concurrent_max_limit=1)
    change.create_team(store, TeamSpec.model_validate({"name": "a", "rate_limit": {"id": "rl", "concurrent_max_limit": 1}}))
    change.create_team(store, TeamSpec.model_validate({"name": "b"}))
    with pytest.raises(Conflict, match="another owner's"):
        change.set_rate_limit(store, row(Scope.TEAM, "b", id="rl", concurrent_max_limit=1))


def test_calendar_windows(seeded: Seeded) -> None:
    """An owner's word holds for windows that match the calendar; the limit's own word must fit each of its windows."""
    day_and_minute = {"token_max_limit": 5, "token_reset_duration": "1d", "request_max_limit": 5, "request_reset_duration": "1m"}
    document = file({Scope.PROVIDER: day_and_minute, Scope.MODEL: day_and_minute})
    document["governance"]["providers"][0]["calendar_aligned"] = True
    document["governance"]["model_configs"][0]["calendar_aligned"] = True
    store, _ = seeded(document)
    assert {(cap.scope, cap.window): cap.calendar_aligned for cap in touched(store)} == {
        (Scope.PROVIDER, "1d"): True, (Scope.PROVIDER, "1m"): False, (Scope.MODEL, "1d"): True, (Scope.MODEL, "1m"): False,
    }  # fmt: skip
    with pytest.raises(UserError, match="rate_limit: a window of 1m is too short to be calendar aligned"):
        change.set_rate_limit(store, row(Scope.TEAM, "team-1", calendar_aligned=True, **day_and_minute))


@pytest.mark.parametrize("enforcement", ["soft", "observe"])
def test_a_soft_limit_on_parallel_calls_is_hard(seeded: Seeded, enforcement: str) -> None:
    """Nothing is ever used up of it, so a soft one would bind nobody."""
    store, _ = seeded(file({}))
    limits = {"request_max_limit": 1, "request_reset_duration": "1m", "concurrent_max_limit": 1, "enforcement": enforcement}
    change.set_rate_limit(store, row(Scope.TEAM, "team-1", **limits))
    found = {cap.unit: cap.enforcement.value for cap in touched(store)}
    assert found == {Unit.REQUESTS: enforcement, Unit.CONCURRENT: "hard" if enforcement == "soft" else "observe"}


def test_a_provider_that_is_deleted_takes_its_limits_along(store: ConfigStore) -> None:
    change.create_provider(store, "openai", ProviderSpec.model_validate({"keys": [{"name": "main", "value": "sk-x-000000000000"}]}))
    change.set_rate_limit(store, row(Scope.PROVIDER, "openai", concurrent_max_limit=1))
    change.delete_provider(store, "openai")
    assert limits_of(store, Scope.PROVIDER, "openai") == []

"""Pricing overrides in the store: what may be said, what becomes of it, and who takes them along when they go."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from store.clock import Ids
from store.config_store import change, read
from store.config_store.build import load_snapshot
from store.config_store.change_prices import (
    create_pricing_override,
    delete_pricing_override,
    read_spec,
    update_pricing_override,
)
from store.config_store.documents import document
from store.config_store.file_only import apply_file, open_file_only
from store.config_store.price_overrides import scoped_prices
from store.config_store.problems import join_problems, problems
from store.config_store.read_prices import OverrideQuery, override_page, pricing_override
from store.config_store.specs import ProviderKeySpec, VirtualKeySpec
from store.config_store.specs_prices import PricingOverridePatch, PricingOverrideSpec, prices_of
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound, SettingsError, UserError
from store.settings import settings_from
from tests.conftest import OpenDatabase
from tests.store.config_store.conftest import StillClock

PATCH = {"input_cost_per_token": Decimal("0.000002"), "output_cost_per_token": Decimal("0.000008")}


def wanted(**fields: Any) -> PricingOverrideSpec:
    """A global override of gpt-4o at $2 and $8 per million tokens, unless told otherwise."""
    document = {
        "name": "negotiated", "scope_kind": "global", "match_type": "exact", "pattern": "gpt-4o",
        "request_types": ["chat_completion"], "patch": PATCH,
    }  # fmt: skip
    return read_spec(document | fields)


def refused(**fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        wanted(**fields)
    return str(caught.value)


def test_prices_are_kept_to_the_last_digit(store: ConfigStore) -> None:
    patch = {"input_cost_per_token": Decimal("1.5E-7"), "output_cost_per_token": "0.000000000001", "cost_per_request": 0}
    made = create_pricing_override(store, wanted(patch=patch))
    with store.database.read() as connection:
        found = pricing_override(connection, made.id)
    assert found == made
    assert made.patch == (
        ("input_cost_per_token", "0.00000015"), ("output_cost_per_token", "0.000000000001"), ("cost_per_request", "0"),
    )  # fmt: skip


def test_a_price_per_million_is_not_taken_for_one_per_token() -> None:
    """$2.50 per million tokens is 0.0000025 per token; 2.5 would be two and a half million dollars per million tokens."""
    said = refused(patch={"input_cost_per_token": Decimal("2.5")})
    assert "patch.input_cost_per_token" in said
    assert "$2,500,000 per million" in said and "0.0000025" in said and "confirm_high_prices" in said
    assert wanted(patch={"input_cost_per_token": Decimal("2.5")}, confirm_high_prices=True)
    assert "$10,000 per 1,000" in refused(patch={"search_context_cost_per_query": 10})


@pytest.mark.parametrize("highest", ["0.001", "0.0006"])
def test_the_dearest_prices_there_are_need_no_confirmation(highest: str) -> None:
    assert wanted(patch={"output_cost_per_token": highest})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"patch": {"input_cost_per_tokn": 1}}, "patch.input_cost_per_tokn: unknown key; did you mean 'input_cost_per_token'?"),
        ({"patch": {"input_cost_per_token": -1}}, "patch.input_cost_per_token: must not be negative"),
        ({"patch": {"input_cost_per_token": "0.0000000000001"}}, "more than 12 decimals"),
        ({"patch": {"input_cost_per_token": "1e999999999"}}, "below 1,000,000"),
        ({"patch": {"input_cost_per_token": True}}, "must be a price in USD"),
        ({"patch": {"input_cost_per_token": "NaN"}}, "must be a price in USD"),
        ({"patch": {"ocr_cost_per_page": 1}}, "ocr_cost_per_page is not implemented"),
        ({"patch": {}}, "at least one price"),
        ({"patch": {}, "pricing_patch": {}}, "not both"),
        ({"patch": None}, "patch"),
        ({"scope_kind": "provider"}, "provider_id: is required"),
        ({"provider_id": "openai"}, "provider_id: does not go with scope_kind 'global'"),
        ({"scope_kind": "user"}, "scope_kind: must be"),
        ({"user_id": "somebody"}, "user_id is not implemented"),
        ({"pattern": "gpt-4o*"}, 'use "wildcard"'),
        ({"pattern": "gpt-4o", "match_type": "wildcard"}, "must end in *"),
        ({"pattern": "gpt*4o*", "match_type": "wildcard"}, "has * before its end"),
        ({"request_types": []}, "must name at least one"),
        ({"request_types": ["chat_completion_stream"]}, "write 'chat_completion'"),
        ({"request_types": ["chat_completions"]}, "did you mean 'chat_completion'?"),
        ({"request_types": ["speech"]}, "are not metered here"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], words: str) -> None:
    assert words in refused(**fields)


def test_a_zero_with_an_absurd_exponent_is_a_zero(store: ConfigStore) -> None:
    made = create_pricing_override(store, wanted(patch={"input_cost_per_token": "0e999999999"}))
    assert made.patch == (("input_cost_per_token", "0"),)


def test_bifrosts_text_of_a_patch_is_read() -> None:
    said = PricingOverrideSpec.model_validate(
        {"name": "a", "scope_kind": "global", "match_type": "exact", "pattern": "m", "request_types": ["embedding"],
         "pricing_patch": '{"input_cost_per_token": 2e-8}'}
    )  # fmt: skip
    assert prices_of(said.prices) == {"input_cost_per_token": Decimal("0.00000002")}


def test_names_are_unique_and_ids_are_found(store: ConfigStore) -> None:
    made = create_pricing_override(store, wanted())
    with pytest.raises(Conflict, match="already a pricing override named 'negotiated'"):
        create_pricing_override(store, wanted())
    with pytest.raises(Conflict, match="choose another id"):
        create_pricing_override(store, wanted(id=made.id, name="another"))
    with pytest.raises(UserError, match=r"provider_id: there is no provider 'opnai'; did you mean 'openai'\?"):
        create_pricing_override(store, wanted(name="b", scope_kind="provider", provider_id="opnai"))
    with pytest.raises(UserError, match="virtual_key_id: there is no virtual key 'nobody'"):
        create_pricing_override(store, wanted(name="b", scope_kind="virtual_key", virtual_key_id="nobody"))
    with pytest.raises(UserError, match="provider_key_id: there is no provider key 'none'"):
        create_pricing_override(store, wanted(name="b", scope_kind="provider_key", provider_key_id="none"))


def test_a_change_keeps_what_it_does_not_name_and_replaces_the_patch(store: ConfigStore) -> None:
    made = create_pricing_override(store, wanted())
    renamed = update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"name": "other"}))
    assert (renamed.name, renamed.patch, renamed.created_ms) == ("other", made.patch, made.created_ms)
    elsewhere = {"scope_kind": "provider", "provider_id": "openai", "patch": {"input_cost_per_token": 0}}
    moved = update_pricing_override(store, made.id, PricingOverridePatch.model_validate(elsewhere))
    assert (moved.provider_id, moved.patch) == ("openai", (("input_cost_per_token", "0"),))
    back = update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"scope_kind": "global"}))
    assert back.provider_id is None
    with pytest.raises(UserError, match="does not go with scope_kind 'global'"):
        update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"provider_id": "openai"}))
    with pytest.raises(NotFound):
        update_pricing_override(store, "no such", PricingOverridePatch())


def test_a_high_price_stays_confirmed_until_the_patch_changes(store: ConfigStore) -> None:
    made = create_pricing_override(store, wanted(patch={"input_cost_per_token": 1}, confirm_high_prices=True))
    assert update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"name": "other"})).name == "other"
    with pytest.raises(UserError, match="confirm_high_prices"):
        update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"patch": {"input_cost_per_token": 2}}))
    with store.database.read() as connection:
        told = document(connection, connection, "pricing_override", made.id)
    assert told is not None and told["confirm_high_prices"] is True
    assert prices_of(read_spec(told).prices) == {"input_cost_per_token": 1}  # what is exported can be imported


def test_every_change_is_audited_and_moves_the_snapshot(store: ConfigStore) -> None:
    def find() -> Any:
        return load_snapshot(store, {}).prices.find("", "openai", "", "gpt-4o", "chat_completion")

    before = load_snapshot(store, {}).revision
    made = create_pricing_override(store, wanted())
    first = find()
    assert first is not None and first is find()  # the same record is compiled once
    update_pricing_override(store, made.id, PricingOverridePatch.model_validate({"patch": {"input_cost_per_token": 0}}))
    assert find() is not first
    delete_pricing_override(store, made.id)
    assert find() is None and load_snapshot(store, {}).revision == before + 3
    with store.database.read() as connection:
        rows = [tuple(row) for row in connection.execute("SELECT action, entity_name, before, after FROM audit ORDER BY sequence")]
    assert [row[:2] for row in rows] == [("create", "negotiated"), ("update", "negotiated"), ("delete", "negotiated")]
    assert json.loads(rows[1][2])["patch"]["input_cost_per_token"] == "0.000002"
    assert json.loads(rows[1][3])["patch"] == {"input_cost_per_token": "0"}


def test_with_a_key_go_the_overrides_that_were_for_it(store: ConfigStore) -> None:
    key = change.create_virtual_key(store, VirtualKeySpec(name="workshop"))
    provider_key = change.create_provider_key(store, "openai", ProviderKeySpec.model_validate({"name": "main", "value": "sk-1"}))
    create_pricing_override(store, wanted(name="of key", scope_kind="virtual_key", virtual_key_id="workshop"))
    create_pricing_override(store, wanted(name="of provider key", scope_kind="provider_key", provider_key_id="main"))
    create_pricing_override(store, wanted(name="of all"))

    def left() -> list[str]:
        with store.database.read() as connection:
            return [record.name for record in read.pricing_overrides(connection)]

    change.delete_virtual_key(store, key.id)
    assert left() == ["of provider key", "of all"]
    change.delete_provider_key(store, "openai", provider_key.id)
    assert left() == ["of all"]


def test_pages(store: ConfigStore) -> None:
    for number in range(5):
        fields = {"scope_kind": "provider", "provider_id": "openai"} if number % 2 else {}
        create_pricing_override(store, wanted(name=f"price {number}", pattern=f"model-{number}", **fields))
    with store.database.read() as connection:
        page, total = override_page(connection, OverrideQuery(2, 1))
        assert ([record.name for record in page], total) == (["price 1", "price 2"], 5)
        page, total = override_page(connection, OverrideQuery(equal={"provider_id": "openai"}))
        assert ([record.name for record in page], total) == (["price 1", "price 3"], 2)
        page, total = override_page(connection, OverrideQuery(search="MODEL-4"))
        assert ([record.name for record in page], total) == (["price 4"], 1)


FILE: dict[str, Any] = {
    "governance": {
        "virtual_keys": [{"name": "workshop", "value": "sk-bf-11111111-2222-4333-8444-555555555555"}],
        "pricing_overrides": [
            {
                "name": "ours", "scope_kind": "virtual_key_provider", "virtual_key_id": "workshop", "provider_id": "openai",
                "match_type": "wildcard", "pattern": "gpt-*", "request_types": ["chat_completion", "speech"],
                "pricing_patch": {"input_cost_per_token": Decimal("0.000001"), "ocr_cost_per_page": 1},
            }
        ],
    }
}  # fmt: skip


def test_the_file_seeds_them(seeded: Callable[..., Any]) -> None:
    store, report = seeded(FILE)
    assert any("ocr_cost_per_page" in warning for warning in report.warnings)
    with store.database.read() as connection:
        (record,) = read.pricing_overrides(connection)
        key = read.virtual_key(connection, "workshop")
    assert key is not None and record.virtual_key_id == key.id
    assert record.patch == (("input_cost_per_token", "0.000001"),)
    found = scoped_prices((record,)).find(key.id, "openai", "", "gpt-4o", "chat_completion")
    assert found is not None and found.source == f"override ours ({record.id})"
    _, again = seeded(FILE)
    assert "pricing overrides: ours" in again.ignored
    seeded(FILE, reseed=True)
    with store.database.read() as connection:
        assert [one.id for one in read.pricing_overrides(connection)] == [record.id]


def test_a_file_alone(open_any: OpenDatabase, clock: StillClock) -> None:
    """File-only mode: the file's overrides are in force on every node under the same ids, and cannot be edited."""
    settings = settings_from(FILE | {"config_store": {"enabled": False}}, {}, source="config.json")
    ledger = open_any(clock)
    made, _ = apply_file(ledger, settings, clock=clock, ids=Ids(clock))
    other = open_file_only(open_any(clock), settings, clock=clock, ids=Ids(clock))
    sources = []
    for node in (made, other):
        (key,) = load_snapshot(node, {}).virtual_keys.values()
        found = load_snapshot(node, {}).prices.find(key.id, "openai", "", "gpt-4o", "chat_completion")
        assert found is not None
        sources.append(found.source)
        with pytest.raises(Conflict, match=r"change the file"):
            create_pricing_override(node, wanted())
        node.database.close()
    assert sources[0] == sources[1]


def test_a_mistake_in_the_file_has_its_path() -> None:
    override = FILE["governance"]["pricing_overrides"][0]
    for wrong, words in (
        (override | {"virtual_key_id": "wrkshop"}, "governance.pricing_overrides[0].virtual_key_id"),
        (override | {"pricing_patch": {"input_cost_per_token": 3}}, "$3,000,000 per million"),
        (override | {"patern": "x"}, "did you mean 'pattern'?"),
    ):
        document = {"governance": FILE["governance"] | {"pricing_overrides": [wrong]}}
        with pytest.raises(SettingsError) as caught:
            settings_from(document, {}, source="config.json")
        assert words in str(caught.value)
    twice = {"governance": FILE["governance"] | {"pricing_overrides": [override, override]}}
    with pytest.raises(SettingsError, match="stands there twice"):
        settings_from(twice, {}, source="config.json")


def test_the_schema_and_the_model_know_the_same_fields() -> None:
    """The patch is made of a table; a field that is in neither list is refused by name."""
    with pytest.raises(ValidationError) as caught:
        PricingOverridePatch.model_validate({"patch": {"input_cost": 1}})
    assert "patch.input_cost: unknown key" in join_problems(problems(PricingOverridePatch, caught.value))

"""Names and ids of any characters are kept and found again, by both engines alike; what no database can keep is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from store.config_store import change, read
from store.config_store.specs import BudgetRowSpec, ProviderSpec, Spec, TeamSpec, VirtualKeySpec
from store.config_store.store import ConfigStore

ODD = ["x" * 200, "€" * 200, "😀" * 200, "'; DROP TABLE virtual_keys --", "a\nb\u202e", "100%_\\", '["x"]', "?", "$1", "ß"]


@pytest.mark.parametrize("text", ODD)
def test_it_comes_back_as_it_was_written(store: ConfigStore, text: str) -> None:
    budgets = [{"max_limit": 1, "reset_duration": "1h", "name": text}]
    key = {
        "id": text,
        "name": text,
        "description": text,
        "provider_configs": [{"provider": "openai", "id": text}],
        "budgets": budgets,
    }
    change.create_virtual_key(store, VirtualKeySpec.model_validate(key))
    change.create_team(store, TeamSpec.model_validate({"name": text}))
    change.create_provider(store, "openai", ProviderSpec.model_validate({"keys": [{"name": text, "value": "sk-1"}]}))
    with store.database.read() as connection:
        (record,), total = read.key_page(connection, read.KeyQuery(search=text))
        assert (record.id, record.name, record.description, record.provider_configs[0].id, total) == (text, text, text, text, 1)
        assert read.virtual_keys(connection, [text]) == (record,)
        (budget,), count = read.budget_ids(connection, now_ms=0, limit=None, offset=0, search=text)
        found = read.cap(connection, budget)
        assert found is not None and (found.name, found.scope_id, found.scope_name, count) == (text, text, text, 1)
        assert read.team(connection, text) is not None
        provider = read.provider(connection, "openai")
        assert provider is not None and provider.keys[0].name == text


@pytest.mark.parametrize("text", ["a\0b", "\0", "a\ud800", "\udfff"])
@pytest.mark.parametrize(
    ("spec", "document", "field"),
    [
        (VirtualKeySpec, {}, "name"),
        (VirtualKeySpec, {"name": "n"}, "id"),
        (VirtualKeySpec, {"name": "n"}, "team_id"),
        (TeamSpec, {}, "name"),
        (BudgetRowSpec, {"name": "n", "max_limit": 1, "scope": "model"}, "scope_id"),
    ],
)
def test_what_cannot_be_kept_is_refused(spec: type[Spec], document: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec.model_validate({**document, field: text})
    (problem,) = caught.value.errors()
    assert problem["loc"][0] == field and ("NUL character" in problem["msg"] or "surrogate" in problem["msg"])


def test_what_is_asked_for_with_a_nul_is_not_there(store: ConfigStore) -> None:
    change.create_virtual_key(store, VirtualKeySpec(name="a"))
    with store.database.read() as connection:
        assert read.virtual_key(connection, "a\0") is None
        assert read.virtual_keys(connection, ["a\0", "\\u0000", "a"]) == ()
        assert read.key_page(connection, read.KeyQuery(search="\0"))[1] == 0

"""Ids for entries without one: the same on every machine, different for different entries, whatever stands beside them."""

import uuid
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from store.config_store.file_plan import FilePlan, read_plan
from store.config_store.stable_ids import stable_id, with_stable_ids
from store.settings import settings_from

NAMES = st.lists(
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=12),
    min_size=1,
    max_size=6,
    unique=True,
)


def plan(document: dict[str, Any]) -> FilePlan:
    return with_stable_ids(read_plan(settings_from(document, {}, source="config.json")))


def entries(names: list[str]) -> dict[str, Any]:
    configs = [{"provider": "openai"}, {"provider": "anthropic"}, {"provider": "openai", "allowed_models": ["gpt-4o"]}]
    return {
        "providers": {"openai": {"keys": [{"name": name, "value": "sk-x"} for name in names]}},
        "governance": {
            "teams": [{"name": name} for name in names],
            "customers": [{"name": name} for name in names],
            "virtual_keys": [{"name": name, "provider_configs": configs} for name in names],
        },
    }


def ids_of(made: FilePlan) -> dict[tuple[str, ...], str | None]:
    found: dict[tuple[str, ...], str | None] = {("team", row.name): row.id for row in made.teams}
    found |= {("customer", row.name): row.id for row in made.customers}
    found |= {("provider_key", key.name): key.id for _, provider in made.providers for key in provider.keys}
    for row in made.virtual_keys:
        found["virtual_key", row.name] = row.id
        found |= {("config", row.name, str(place)): config.id for place, config in enumerate(row.provider_configs)}
    return found


@given(NAMES)
def test_ids_are_unique_and_do_not_depend_on_neighbours_or_order(names: list[str]) -> None:
    whole = ids_of(plan(entries(names)))
    assert None not in whole.values() and len({*whole.values()}) == len(whole) == 7 * len(names)
    assert ids_of(plan(entries(names[::-1]))) == whole
    alone = ids_of(plan(entries(names[:1])))
    assert alone == {what: whole[what] for what in alone}


def test_an_id_is_what_the_rfc_says() -> None:
    made = uuid.UUID(stable_id("team", "search"))
    assert (made.version, made.variant) == (5, uuid.RFC_4122)
    # Written down: a change of it would make every budget of every file-only deployment a new one.
    assert str(made) == "d476b3fa-90e6-5980-9805-0a3c1f05e555"
    assert stable_id("a", "b\x1fc") != stable_id("a", "b", "c")


def test_ids_of_the_file_stay() -> None:
    made = plan(
        {
            "governance": {
                "teams": [{"id": "t", "name": "a"}],
                "virtual_keys": [{"id": "v", "name": "k", "provider_configs": [{"id": 7, "provider": "openai"}]}],
            }
        }
    )
    (key,) = made.virtual_keys
    assert (made.teams[0].id, key.id, key.provider_configs[0].id) == ("t", "v", "7")

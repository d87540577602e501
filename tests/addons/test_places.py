"""Who serves a bare model name is remembered for one snapshot, and no longer."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from addons.candidates import candidates
from addons.places import REMEMBERED_MAX, PlacesMemo
from store.config_store.snapshot import ANY, ProviderConfig
from tests.addons.test_candidates import OWN, asked
from tests.support import calls
from tests.support.calls import KEY


def test_an_edit_counts_from_the_next_call_on() -> None:
    both = (ProviderConfig("pc-1", "openai", allowed_models=(ANY,)), ProviderConfig("pc-2", "east", allowed_models=(ANY,)))
    made, services = asked(calls.virtual_key(provider_configs=both))
    assert [one.provider.name for one in candidates(made, services, None)] == ["openai", "east"]
    assert [one.provider.name for one in candidates(made, services, None)] == ["openai", "east"], "remembered"
    before = made.governance()
    changed = calls.virtual_key(provider_configs=(replace(both[0], allowed_models=("gpt-5",)), both[1]))
    made.snapshot = replace(before, virtual_keys=MappingProxyType({KEY: changed}))
    made.virtual_key = changed
    assert [one.provider.name for one in candidates(made, services, None)] == ["east"]
    made.snapshot = replace(before, providers=MappingProxyType({**before.providers, "east": replace(OWN["east"], keys=())}))
    made.virtual_key = before.virtual_keys[KEY] if KEY in before.virtual_keys else calls.virtual_key(provider_configs=both)
    assert [one.provider.name for one in candidates(made, services, None)] == ["openai"], "east has no key any more"


def test_what_the_question_depends_on_is_part_of_it() -> None:
    narrow = ProviderConfig("pc-1", "openai", allowed_models=("gpt-4o-mini",))
    key = calls.virtual_key(provider_configs=(narrow, ProviderConfig("pc-2", "east", allowed_models=(ANY,))))
    made, services = asked(key)
    assert [one.provider.name for one in candidates(made, services, None)] == ["openai", "east"]
    another, _ = asked(key, model="gpt-5")
    another.snapshot = made.snapshot
    assert [one.provider.name for one in candidates(another, services, None)] == ["east"]


def test_names_that_callers_make_up_do_not_fill_the_memory() -> None:
    memo, snapshot = PlacesMemo(), calls.snapshot()
    for number in range(REMEMBERED_MAX + 10):
        memo.put(snapshot, number, ())
    known: Any = memo
    assert len(known._known) == 10 and memo.get(snapshot, 3) is None and memo.get(snapshot, REMEMBERED_MAX + 3) == ()

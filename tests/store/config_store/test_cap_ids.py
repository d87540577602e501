"""Ids of budgets that a document does not name: no budget ever takes the place of another one."""

from decimal import Decimal

import pytest

from store.config_store import change, read
from store.config_store.specs import BudgetSpec, VirtualKeyPatch, VirtualKeySpec
from store.config_store.store import ConfigStore
from store.errors import UserError


def budget(name: str, window: str, limit: int = 1, cap_id: str | None = None) -> BudgetSpec:
    return BudgetSpec(id=cap_id, name=name, max_limit=Decimal(limit), reset_duration=window)


def caps(store: ConfigStore) -> dict[str, tuple[str, str | None, int]]:
    with store.reading() as (_, ledger):
        found = [cap for caps in read.caps_by_scope(ledger).values() for cap in caps]
    return {cap.id: (cap.name, cap.window, cap.limit // 10**9) for cap in found}


def test_a_new_budget_leaves_alone_the_one_that_had_its_window_before(store: ConfigStore) -> None:
    key = change.create_virtual_key(store, VirtualKeySpec(name="a", budgets=(budget("b", "1h"),)))
    (first,) = caps(store)
    for budgets in ((budget("b", "1d"),), (budget("b", "1d"), budget("c", "1h", 2))):
        change.update_virtual_key(store, key.id, VirtualKeyPatch(budgets=budgets))
    found = caps(store)
    assert sorted(found.values()) == [("b", "1d", 1), ("c", "1h", 2)]
    assert found[first] == ("b", "1d", 1)
    change.update_virtual_key(store, key.id, VirtualKeyPatch(budgets=(budget("c", "1h", 3), budget("b", "1d"))))
    assert caps(store) == {cap_id: (name, window, 3 if name == "c" else 1) for cap_id, (name, window, _) in found.items()}


def test_an_id_goes_before_a_window_whatever_the_order(store: ConfigStore) -> None:
    key = change.create_virtual_key(store, VirtualKeySpec(name="a", budgets=(budget("b", "1h"),)))
    (first,) = caps(store)
    budgets = (budget("new", "1h", 5), budget("old", "1d", 7, first))
    change.update_virtual_key(store, key.id, VirtualKeyPatch(budgets=budgets))
    found = caps(store)
    assert found.pop(first) == ("old", "1d", 7)
    assert list(found.values()) == [("new", "1h", 5)]


def test_the_same_id_twice_is_refused(store: ConfigStore) -> None:
    with pytest.raises(UserError, match="two budgets have the same id"):
        change.create_virtual_key(store, VirtualKeySpec(name="a", budgets=(budget("b", "1h", 1, "x"), budget("c", "1d", 1, "x"))))
    assert caps(store) == {}

"""The plan of a file that is applied to a store with data, as an operator reads it."""

from decimal import Decimal

from addons.process.plan_text import MOST_LINES, plan_lines
from store.config_store.bootstrap import BootstrapReport
from store.config_store.whole import Documents


def test_what_is_added_changed_deleted_and_kept() -> None:
    before: Documents = {
        "team": {"1": {"id": "1", "name": "blue", "budgets": [{"id": "b", "name": "day", "max_limit": Decimal("5.00")}]}},
        "virtual_key": {"k": {"id": "k", "name": "old"}, "s": {"id": "s", "name": "same"}},
    }
    after: Documents = {
        "team": {"1": {"id": "1", "name": "blue", "budgets": [{"id": "b", "name": "day", "max_limit": Decimal("7.5")}]}},
        "virtual_key": {"s": {"id": "s", "name": "same"}, "n": {"id": "n", "name": "new\x1b[31m"}},
    }
    report = BootstrapReport(seeded=True, forced=True, documents=(before, after), left={"providers": ("openai",)})
    assert list(plan_lines(report)) == [
        "config.json is applied to the store: 1 added, 1 changed, 1 deleted, 1 unchanged",
        "  ~ team blue",
        "      budgets[day].max_limit: 5.00 -> 7.5",
        "  + virtual key new\ufffd[31m",
        "  - virtual key old",
        "warning: providers is empty in config.json, and the store has openai: left there; "
        "delete them with serve --reseed, or leave the section out",
    ]


def test_nothing_to_say() -> None:
    assert list(plan_lines(BootstrapReport())) == []
    assert list(plan_lines(BootstrapReport(documents=({}, {}), dry_run=True))) == [
        "config.json would be applied to the store: 0 unchanged"
    ]


def test_a_long_plan_is_cut_but_counted() -> None:
    many = {"team": {str(n): {"id": str(n), "name": f"team-{n}"} for n in range(MOST_LINES + 50)}}
    lines = list(plan_lines(BootstrapReport(documents=({}, many))))
    assert lines[0] == f"config.json is applied to the store: {MOST_LINES + 50} added, 0 unchanged"
    assert len(lines) == MOST_LINES + 2 and lines[-1] == "  and 50 more lines"


def test_long_values_are_cut() -> None:
    before, after = ({"team": {"1": {"id": "1", "name": "t", "description": letter * 500}}} for letter in "ab")
    lines = list(plan_lines(BootstrapReport(documents=(before, after))))
    assert lines[2] == f"      description: {'a' * 60}… -> {'b' * 60}…"

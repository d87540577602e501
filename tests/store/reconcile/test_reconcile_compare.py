"""Generated books exported in every format agree; one thing changed is named, and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.reconcile.types import DAY_MS, Verdict
from tests.store.reconcile.exports_here import NOV_20, NOV_21
from tests.store.reconcile.scene import CENT, ours_of, report
from tests.support import exports
from tests.support.exports import Billed

DAYS = ["2026-11-20", "2026-11-21", "2026-11-22"]
GPT, MINI, CLAUDE = "gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "claude-haiku-4-5-20251001"
SHOWN = {CLAUDE: "Claude Haiku 4.5", "claude-opus-5": "Claude Opus 5"}
NOON = 12 * 3_600_000

type Exporter = Callable[[Sequence[Billed]], list[Any]]

OPENAI: dict[str, Exporter] = {
    "pages": lambda calls: [*exports.openai_usage(calls, DAYS), *exports.openai_costs(calls, DAYS)],
    "small pages by tier": lambda calls: [
        *exports.openai_usage(calls, DAYS, page_size=1, group_by=("model", "service_tier", "batch")),
        *exports.openai_costs(calls, DAYS, page_size=2),
    ],
    "hours": lambda calls: [*exports.openai_usage(calls, DAYS, width=3600, page_size=168), *exports.openai_costs(calls, DAYS)],
    "tables": lambda calls: [exports.openai_usage_csv(calls, DAYS), exports.openai_costs_csv(calls, DAYS)],
}
ANTHROPIC: dict[str, Exporter] = {
    "pages": lambda calls: [*exports.anthropic_usage(calls, DAYS, page_size=2), *exports.anthropic_costs(calls, DAYS)],
    "tables": lambda calls: [exports.console_usage_csv(calls, DAYS), exports.console_costs_csv(calls, DAYS, SHOWN)],
}
EVERY = [("openai", name) for name in OPENAI] + [("anthropic", name) for name in ANTHROPIC]


def billed(provider: str) -> st.SearchStrategy[Billed]:
    """A call well away from midnight, with whole prices per token."""
    models = [GPT, MINI] if provider == "openai" else list(SHOWN)
    tokens = st.integers(1, 50_000)
    caches = st.integers(0, 20_000)

    def made(day: int, minute: int, model: str, fresh: int, output: int, read: int, write: int, hour: int) -> Billed:
        hour = 0 if provider == "openai" else hour
        prices = {"fresh": 2500, "output": 10_000, "cache_read": 1250, "write_5m": 3125, "write_1h": 5000}
        counts = {"fresh": fresh, "output": output, "cache_read": read, "write_5m": write, "write_1h": hour}
        nanos = {name: count * prices[name] for name, count in counts.items()}
        return Billed(NOV_20 + day * DAY_MS + minute * 60_000, model, fresh, output, read, write, hour, nanos=nanos)

    minutes = st.integers(60, 1380)
    return st.builds(made, st.integers(0, 2), minutes, st.sampled_from(models), tokens, tokens, caches, caches, caches)


def books(calls: Sequence[Billed]) -> list[Any]:
    return [ours_of(call, number) for number, call in enumerate(calls)]


@pytest.mark.parametrize("provider,name", EVERY)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_was_billed_agrees_in_every_format(provider: str, name: str, data: st.DataObject) -> None:
    calls = data.draw(st.lists(billed(provider), min_size=1, max_size=12))
    exporter = (OPENAI if provider == "openai" else ANTHROPIC)[name]
    rounded = (provider, name) == ("anthropic", "tables")
    made = report(books(calls), exporter(calls), tolerance_nanos=0)
    assert made.agrees and made.exact, [row for row in made.rows if row.verdict is not Verdict.AGREES]
    assert {(row.day, row.model) for row in made.rows} == {(exports.day_of(call), call.model) for call in calls}
    for row in made.rows:
        some = [call for call in calls if (exports.day_of(call), call.model) == (row.day, row.model)]
        assert row.theirs.tokens is not None and row.theirs.tokens.input == sum(call.all_input for call in some)
        assert row.theirs.tokens.output == sum(call.output for call in some)
        if not rounded:
            assert row.theirs.cost_nanos == row.ours.cost_nanos == sum(sum(call.nanos.values()) for call in some)
        assert row.theirs.requests == (len(some) if provider == "openai" else None)


def more_output(call: Billed) -> Billed:
    return replace(call, output=call.output + 1)


def dearer(call: Billed) -> Billed:
    return replace(call, nanos=call.nanos | {"output": call.nanos["output"] + 10 * CENT})


def recached(call: Billed) -> Billed:
    return replace(call, fresh=call.fresh - 1, cache_read=call.cache_read + 1)


def other_day(call: Billed) -> Billed:
    return replace(call, at_ms=NOV_20 + (call.at_ms - NOV_20 + DAY_MS) % (3 * DAY_MS))


@pytest.mark.parametrize("provider,name", EVERY)
@pytest.mark.parametrize(
    "change", [more_output, dearer, recached, other_day, None], ids=lambda one: getattr(one, "__name__", "lost")
)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_one_thing_changed_is_named_and_nothing_else(
    provider: str, name: str, change: Callable[[Billed], Billed] | None, data: st.DataObject
) -> None:
    calls = data.draw(st.lists(billed(provider), min_size=1, max_size=8))
    which = data.draw(st.integers(0, len(calls) - 1))
    exporter = (OPENAI if provider == "openai" else ANTHROPIC)[name]
    changed = [*calls[:which], *([change(calls[which])] if change else []), *calls[which + 1 :]]
    keeper = Billed(
        NOV_21 + NOON, "claude-opus-5" if provider == "anthropic" else MINI, 3, 3, nanos={"fresh": 7500, "output": 30_000}
    )
    made = report(books([*calls, keeper]), exporter([*changed, keeper]))
    touched = {(exports.day_of(one), one.model) for one in (calls[which], *([change(calls[which])] if change else []))}
    covered = {row.day for row in made.rows}
    differing = {(row.day, row.model) for row in made.rows if row.verdict is not Verdict.AGREES}
    assert not made.agrees or not touched <= {(day, model) for day, model in touched if day in covered}
    assert differing <= touched
    assert all(row.findings for row in made.rows if row.verdict is Verdict.DIFFERS)
    if name != "tables" or provider == "openai":  # the Console leaves out days at its edges
        assert differing == touched

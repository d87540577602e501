"""What to look at twice before an import: caps below what is spent, limits raised tenfold, keys shut out or let free."""

from collections.abc import Iterator

from store.config_store.change_runs import DEFAULT_KEY_NAME
from store.config_store.rehearsal import Outcome
from store.config_store.store import ConfigStore
from store.config_store.whole import Whole
from store.database import Connection
from store.ledger.caps import cap_states
from store.ledger.types import Cap, CapState, Enforcement, Unit
from store.money import format_usd

_TOO_MUCH = 10


def warnings_of(ledger: Connection, store: ConfigStore, outcome: Outcome, before: Whole, after: Whole) -> Iterator[str]:
    """One sentence each."""
    changed = [cap for cap in outcome.caps if cap.id in outcome.caps_before]
    states = cap_states(ledger, store.clock.now_ms(), [cap.id for cap in changed])
    for cap, state in zip(changed, states, strict=True):
        yield from _of_cap(cap, outcome.caps_before[cap.id], state)
    for thing, document in after.documents["virtual_key"].items():
        old = before.documents["virtual_key"].get(thing)
        if old is not None and old.get("provider_configs") and not document.get("provider_configs"):
            yield f"the virtual key {document['name']!r} loses all its provider configs: every call of it will be refused"
        if old == document and document["name"] == DEFAULT_KEY_NAME and _is_open(document) and _has_new_keys(before, after):
            yield (
                f"the virtual key {document['name']!r} stays beside the file's keys; it lets its callers use every provider "
                "without a budget: delete it, or give it one"
            )


def _of_cap(cap: Cap, old: Cap, state: CapState) -> Iterator[str]:
    name = f"{_word(cap)} {cap.name!r} of {cap.scope.value.replace('_', ' ')} {cap.scope_name!r}"
    if cap.unit is not Unit.CONCURRENT and cap.limit < old.limit and cap.limit < state.used:
        yield (
            f"the {name} is lowered to {_amount(cap.limit, cap.unit)}, and {_amount(state.used, cap.unit)} is used already: "
            "it is used up at once"
        )
    if old.limit > 0 and cap.limit >= _TOO_MUCH * old.limit and cap.window == old.window:
        yield (
            f"the {name} is raised from {_amount(old.limit, cap.unit)} to {_amount(cap.limit, cap.unit)}, "
            f"{cap.limit // old.limit} times as much: did you mean that?"
        )
    if old.enforcement is Enforcement.HARD and cap.enforcement is not Enforcement.HARD:
        yield f"the {name} is {cap.enforcement.value} from now on: it stops no call" + (
            " before it is full" if cap.enforcement is Enforcement.SOFT else ""
        )


def _word(cap: Cap) -> str:
    return "budget" if cap.unit is Unit.USD else "limit"


def _amount(amount: int, unit: Unit) -> str:
    return format_usd(amount) if unit is Unit.USD else f"{amount} {'parallel calls' if unit is Unit.CONCURRENT else unit.value}"


def _is_open(document: dict[str, object]) -> bool:
    return not document.get("budgets") and not document.get("team_id") and not document.get("customer_id")


def _has_new_keys(before: Whole, after: Whole) -> bool:
    return any(thing not in before.documents["virtual_key"] for thing in after.documents["virtual_key"])

"""The management API for commands: the running gateway's, or one opened on the stores while no gateway runs."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from addons.process.client import ConsoleClient, Json, find_running
from store.errors import NotFound, UserError

KEYS = "/api/governance/virtual-keys"
BUDGETS = "/api/governance/budgets"
TEAMS = "/api/governance/teams"
CUSTOMERS = "/api/governance/customers"
KEY_PREFIX = "sk-bf-"


@contextmanager
def management(app_dir: Path) -> Iterator[ConsoleClient]:
    """A client of the management API of `app_dir`. Raises UserError when nothing was ever started there."""
    running = find_running(app_dir)
    if running is not None:
        yield running.client()
        return
    from addons.process.offline import offline_console

    with offline_console(app_dir) as client:
        yield client


def list_keys(client: ConsoleClient) -> list[Json]:
    """Every virtual key as the API shows it."""
    found: list[Json] = client.get(KEYS)["virtual_keys"]
    return found


def list_budgets(client: ConsoleClient) -> list[Json]:
    """Every budget as the API shows it."""
    found: list[Json] = client.get(BUDGETS)["budgets"]
    return found


def readable_value(key: Json) -> str | None:
    """A virtual key's value, or None where only its hash is kept and the API shows a hint in its place."""
    value = key.get("value")
    shown = isinstance(value, str) and value.startswith(KEY_PREFIX) and value != key.get("value_hint")
    return str(value) if shown else None


def find_key(client: ConsoleClient, wanted: str) -> Json:
    """The virtual key with this id, name or value. Raises NotFound; a value is never repeated."""
    keys = list_keys(client)
    if wanted.startswith(KEY_PREFIX):
        for key in keys:
            if readable_value(key) == wanted:
                return key
        raise NotFound("no virtual key has that value, or only hashes are kept: give the key's name")
    return _pick(keys, wanted, "virtual key", "tollgate keys list")


def find_budget(client: ConsoleClient, wanted: str) -> Json:
    """The budget with this id or name. Raises NotFound, or UserError when several have the name."""
    return _pick(list_budgets(client), wanted, "budget", "tollgate budgets list")


def find_owner(client: ConsoleClient, path: str, plural: str, what: str, wanted: str) -> Json:
    """The team or customer with this id or name. Raises NotFound."""
    return _pick(client.get(path)[plural], wanted, what, f"tollgate {plural} list")


def item(path: str, entity: Json, *rest: str) -> str:
    """The API's address of one entity."""
    return "/".join([path, quote(str(entity["id"]), safe=""), *rest])


def _pick(entities: Sequence[Json], wanted: str, what: str, where: str) -> Json:
    by_id = [entity for entity in entities if entity["id"] == wanted]
    found = by_id or [entity for entity in entities if entity.get("name") == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"several {what}s are named {wanted!r}: give the id, one of {', '.join(map(_candidate, found))}")
    close = difflib.get_close_matches(wanted, [_name(entity) for entity in entities], n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"{where} shows what there is"
    raise NotFound(f"there is no {what} {wanted!r}: {hint}")


def _candidate(entity: Json) -> str:
    """`ID (virtual key robot, every 1h)`: enough to choose by."""
    owner = f"{entity['scope']} {entity.get('scope_name') or entity['scope_id']}".replace("_", " ") if "scope" in entity else ""
    window = f"every {entity['reset_duration']}" if entity.get("reset_duration") else ""
    told = ", ".join(part for part in (owner, window) if part)
    return f"{entity['id']} ({told})" if told else str(entity["id"])


def _name(entity: dict[str, Any]) -> str:
    return str(entity.get("name") or entity["id"])

"""What several commands share: saying what was done, asking first, and naming owners to the management API."""

import sys
import time
from typing import Any

import click

from addons.process.amounts import BudgetText
from addons.process.client import ConsoleClient, Json
from addons.process.management import CUSTOMERS, TEAMS, find_key, find_owner
from addons.process.text import exact_json
from store.errors import UserError
from store.money import plain_usd


def announce(line: str) -> None:
    """On stderr, so that stdout carries nothing but the value somebody may want to catch."""
    print(f"tollgate: {line}", file=sys.stderr)


def confirm(question: str, yes: bool) -> None:
    """Asks on the terminal unless `yes`. Raises UserError when there is none, click.Abort for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("not asked for confirmation without a terminal: add --yes")
    click.confirm(question, abort=True, err=True)


def print_json(value: Any) -> None:
    """On stdout, indented, amounts exact."""
    print(exact_json(value))


def now_ms() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000_000


def budget_body(limit: BudgetText) -> Json:
    """A budget's limit and window as the API takes them."""
    body: Json = {"max_limit": plain_usd(limit.limit_nanos)}
    if limit.window is not None:
        body["reset_duration"] = limit.window
    return body


def owner_id(client: ConsoleClient, scope: str, wanted: str) -> str:
    """The id of whom a budget binds: keys, teams and customers by id or name. Raises NotFound."""
    if scope == "virtual_key":
        return str(find_key(client, wanted)["id"])
    if scope == "team":
        return str(find_owner(client, TEAMS, "teams", "team", wanted)["id"])
    if scope == "customer":
        return str(find_owner(client, CUSTOMERS, "customers", "customer", wanted)["id"])
    return wanted

"""`tollgate teams` and `tollgate customers`: list, make, change and delete the groups whose caps bind all their keys."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from addons.process.amounts import BudgetText
from addons.process.cli import BUDGET, WholeGroup, app_dir_option
from addons.process.client import Json
from addons.process.common import announce, budget_body, confirm, owner_id, print_json
from addons.process.management import CUSTOMERS, TEAMS, find_owner, item, management
from addons.process.text import few, nanos_of, rounded_usd, table, usd
from store.errors import UserError

_BUDGETS = click.option(
    "--budget", "limits", type=BUDGET, multiple=True, metavar="AMOUNT[/WINDOW]", help="2usd/1h, $50/1d; may repeat."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print what the API shows.")


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between teams and customers."""

    word: str
    path: str

    @property
    def plural(self) -> str:
        """As in the API."""
        return f"{self.word}s"


def _commands(kind: Kind, group: click.Group, *, of_customers: bool) -> None:
    """Gives a group its commands."""

    def customer_option(command: Callable[..., Any]) -> Callable[..., Any]:
        help_text = "Customer whose caps bind the team too (id or name)."
        return click.option("--customer", help=help_text)(command) if of_customers else command

    @group.command("list", help=f"Every {kind.word} with its budgets and how many keys it has.")
    @app_dir_option
    @_JSON
    def list_(app_dir: Path, as_json: bool) -> None:
        with management(app_dir) as client:
            found: list[Json] = client.get(kind.path)[kind.plural]
        if as_json:
            print_json(found)
        elif not found:
            print(f"no {kind.plural} yet: tollgate {kind.plural} create NAME makes one")
        else:
            print(table(["NAME", "BUDGETS", "KEYS", "ID"], [_row(one) for one in found]), end="")

    @group.command("create", help=f"Make a {kind.word}.")
    @app_dir_option
    @click.argument("name")
    @_BUDGETS
    @customer_option
    @_JSON
    def create(app_dir: Path, name: str, limits: tuple[BudgetText, ...], as_json: bool, customer: str | None = None) -> None:
        with management(app_dir) as client:
            body: Json = {"name": name, "budgets": [budget_body(limit) for limit in limits]}
            if customer:
                body["customer_id"] = owner_id(client, "customer", customer)
            made = client.call("POST", kind.path, body)[kind.word]
        announce(f"made the {kind.word} {made['name']}")
        if as_json:
            print_json(made)

    @group.command("update", help=f"Change a {kind.word} (id or name). What its keys have spent stays.")
    @app_dir_option
    @click.argument("group")
    @click.option("--name", help="A new name.")
    @customer_option
    @_JSON
    def update(app_dir: Path, group: str, name: str | None, as_json: bool, customer: str | None = None) -> None:
        with management(app_dir) as client:
            found = find_owner(client, kind.path, kind.plural, kind.word, group)
            body: Json = {"name": name} if name is not None else {}
            if customer is not None:
                body["customer_id"] = owner_id(client, "customer", customer) if customer else ""
            if not body:
                raise UserError(
                    f"nothing to change: say what, see tollgate {kind.plural} update --help; "
                    f"for its budgets there is tollgate budgets create NAME --{kind.word} {found['name']}"
                )
            made = client.call("PUT", item(kind.path, found), body)[kind.word]
        announce(f"changed the {kind.word} {made['name']}")
        if as_json:
            print_json(made)

    @group.command("delete", help=f"Delete a {kind.word} with its budgets. Its keys stay, without a {kind.word}.")
    @app_dir_option
    @click.argument("group")
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    def delete(app_dir: Path, group: str, yes: bool) -> None:
        with management(app_dir) as client:
            found = find_owner(client, kind.path, kind.plural, kind.word, group)
            keys = [str(key["name"]) for key in found.get("virtual_keys") or []]
            effect = f" The keys {few(keys)} stay, without its caps." if keys else ""
            confirm(f"Delete the {kind.word} {found['name']} and its budgets?{effect}", yes)
            client.call("DELETE", item(kind.path, found))
        announce(f"deleted the {kind.word} {found['name']}")


def _row(one: Json) -> list[str]:
    budgets = [
        f"{rounded_usd(nanos_of(budget.get('current_usage', 0)))} of {usd(budget['max_limit'])}"
        + (f" per {budget['reset_duration']}" if budget.get("reset_duration") else "")
        for budget in one.get("budgets") or []
    ]
    return [str(one["name"]), "; ".join(budgets) or "none", str(one.get("virtual_key_count", 0)), str(one["id"])]


@click.group(cls=WholeGroup)
def teams() -> None:
    """Teams: caps that bind all the keys of a team together.

    Put a key into a team with "tollgate keys create NAME --team TEAM", give the team budgets with "tollgate budgets create".
    """


@click.group(cls=WholeGroup)
def customers() -> None:
    """Customers: caps that bind all the keys and teams of a customer together."""


_commands(Kind("team", TEAMS), teams, of_customers=True)
_commands(Kind("customer", CUSTOMERS), customers, of_customers=False)

"""`tollgate budgets`: list, make, change, delete, reset, top up, raise for a while and take that back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from addons.process.amounts import BudgetText
from addons.process.cli import AMOUNT, BUDGET, WholeGroup, app_dir_option
from addons.process.client import Json
from addons.process.common import announce, budget_body, confirm, now_ms, owner_id, print_json
from addons.process.management import BUDGETS, find_budget, item, list_budgets, management
from addons.process.model_budget import ModelTarget, make_model_budget
from addons.process.text import usd
from store.errors import UserError
from store.money import format_usd, plain_usd

type Command = Callable[..., Any]

_ENFORCEMENTS = click.Choice(["hard", "soft", "observe"])
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the budget as the API shows it.")


def _reason(of: str) -> Callable[[Command], Command]:
    return click.option("--reason", default="", help=f"Kept in the ledger beside the {of}.")


@click.group(cls=WholeGroup)
def budgets() -> None:
    """Budgets: caps in money on a key, a team, a customer, a provider or a model.

    One owner may have several with different windows, such as $50 a day and $1000 a month. A call must fit all that bind it. BUDGET
    is a name or an id.
    """


@budgets.command("list")
@app_dir_option
@click.option("--json", "as_json", is_flag=True, help="The API's own objects.")
def budgets_list(app_dir: Path, as_json: bool) -> None:
    """Every budget with what is spent and when it resets."""
    with management(app_dir) as client:
        found = list_budgets(client)
    if as_json:
        print_json(found)
    else:
        from addons.process.status import budget_table

        print(budget_table(found, now_ms()), end="")


@budgets.command("create")
@app_dir_option
@click.argument("name")
@click.option("--limit", type=BUDGET, required=True, metavar="AMOUNT[/WINDOW]", help="0.50usd/1h, $50/1d; no window: prepaid.")
@click.option("--key", help="Virtual key it binds (id or name).")
@click.option("--team", help="Team it binds (id or name).")
@click.option("--customer", help="Customer it binds (id or name).")
@click.option("--provider", help="Provider it binds, for everybody; with --model: that model at this provider alone.")
@click.option("--model", help='Model it binds, or a pattern such as "gpt-4o*", for everybody; with --key: for that key alone.')
@click.option("--enforcement", type=_ENFORCEMENTS, default="hard", show_default=True, help="What it does when it is full.")
@click.option("--calendar", is_flag=True, help="Windows follow the calendar: day, week, month, quarter, year.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose midnight, for --calendar.")
@_JSON
def budgets_create(
    app_dir: Path, name: str, limit: BudgetText, key: str | None, team: str | None, customer: str | None, provider: str | None,
    model: str | None, enforcement: str, calendar: bool, timezone: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a budget and attach it to one of --key, --team, --customer, --provider or --model.

    --model goes together with --key (what that key may spend on the model), with --provider, or with both.

    \b
      tollgate budgets create robot-day --key robot --limit 5usd/1d
      tollgate budgets create robot-o3 --key robot --model o3 --limit 1usd/1d
      tollgate budgets create house --provider openai --limit 300usd/1d
    """
    owners = {"virtual_key": key, "team": team, "customer": customer, "provider": provider, "model": model}
    given = {scope: wanted for scope, wanted in owners.items() if wanted is not None}
    body: Json = {"name": name, **budget_body(limit), "enforcement": enforcement}
    if calendar:
        body |= {"calendar_aligned": True, "timezone": timezone}
    of_model = model is not None and given.keys() <= {"virtual_key", "provider", "model"}
    if not of_model and len(given) != 1:
        raise UserError(
            "a budget binds exactly one owner: give one of --key, --team, --customer, --provider, --model"
            " (--model also together with --key or --provider)"
        )
    with management(app_dir) as client:
        if of_model:
            target = ModelTarget(model or "", provider, None if key is None else owner_id(client, "virtual_key", key))
            made, whom = make_model_budget(client, target, body), "model " + target.told(key)
        else:
            ((scope, wanted),) = given.items()
            body |= {"scope": scope, "scope_id": owner_id(client, scope, wanted)}
            made, whom = client.call("POST", BUDGETS, body)["budget"], f"{scope.replace('_', ' ')} {wanted}"
    _done(f"made the budget {made.get('name') or name}: {limit} on {whom}", made, as_json)


@budgets.command("update")
@app_dir_option
@click.argument("budget")
@click.option("--name", help="A new name.")
@click.option("--limit", type=BUDGET, metavar="AMOUNT[/WINDOW]", help="A new limit, and a new window where one is given.")
@click.option("--enforcement", type=_ENFORCEMENTS, help="What it does when it is full.")
@_reason("change")
@_JSON
def budgets_update(
    app_dir: Path, budget: str, name: str | None, limit: BudgetText | None, enforcement: str | None, reason: str, as_json: bool
) -> None:
    """Change a budget for good. What was spent stays; for a while only there is "budgets raise"."""
    wanted = {"name": name, "enforcement": enforcement}
    body: Json = {field: value for field, value in wanted.items() if value is not None}
    if limit is not None:
        body |= budget_body(limit)
    if not body:
        raise UserError("nothing to change: say what, see tollgate budgets update --help")
    with management(app_dir) as client:
        found = find_budget(client, budget)
        made: Json = client.call("PUT", item(BUDGETS, found), _with_reason(body, reason))["budget"]
    _done(f"changed the budget {_name(made)}: {_left(made)}", made, as_json)


@budgets.command("delete")
@app_dir_option
@click.argument("budget")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def budgets_delete(app_dir: Path, budget: str, yes: bool) -> None:
    """Delete a budget. Calls in flight still settle on it."""
    with management(app_dir) as client:
        found = find_budget(client, budget)
        confirm(f"Delete the budget {_name(found)}?", yes)
        client.call("DELETE", item(BUDGETS, found))
    announce(f"deleted the budget {_name(found)}")


@budgets.command("reset")
@app_dir_option
@click.argument("budget")
@_reason("reset")
@_JSON
def budgets_reset(app_dir: Path, budget: str, reason: str, as_json: bool) -> None:
    """Start a budget at nothing spent. Calls in flight keep what they hold; calls booked before are forgiven for good."""
    spent, made = _change(app_dir, budget, "POST", "reset", _with_reason({}, reason))
    _done(f"reset the budget {_name(made)}: {usd(spent.get('current_usage', 0))} had been spent", made, as_json)


@budgets.command("topup")
@app_dir_option
@click.argument("budget")
@click.argument("amount", type=AMOUNT)
@_reason("top-up")
@_JSON
def budgets_topup(app_dir: Path, budget: str, amount: int, reason: str, as_json: bool) -> None:
    """Add AMOUNT (5usd, 50c) to a budget: for good when it is prepaid, else for the window that runs now."""
    _, made = _change(app_dir, budget, "POST", "topup", _with_reason({"amount": plain_usd(amount)}, reason))
    _done(f"added {format_usd(amount)} to the budget {_name(made)}: {_left(made)}", made, as_json)


@budgets.command("raise")
@app_dir_option
@click.argument("budget")
@click.option("--by", type=AMOUNT, metavar="AMOUNT", help="What is added to the limit: 5usd, 50c.")
@click.option("--to", type=AMOUNT, metavar="AMOUNT", help="What the limit is raised to.")
@click.option("--until", metavar="TIME", help="When it ends, such as 2026-12-31T18:00:00Z or 2026-12-31T18:00+01:00.")
@click.option("--for", "duration", metavar="DURATION", help="How long it lasts from now on: 2h, 3d.")
@_reason("raise")
@_JSON
def budgets_raise(
    app_dir: Path, budget: str, by: int | None, to: int | None, until: str | None, duration: str | None, reason: str, as_json: bool
) -> None:
    """Raise a budget's limit for a while; it ends by itself, at its instant. A raise that is in force is replaced.

    \b
      tollgate budgets raise workshop --by 5usd --for 2h --reason "the demo runs over"
      tollgate budgets raise team-day --to 80usd --until 2026-12-24T18:00+01:00
    """
    if (by is None) == (to is None):
        raise UserError("say how much: give one of --by AMOUNT (added to the limit) and --to AMOUNT (the limit meanwhile)")
    if (until is None) == (duration is None):
        raise UserError("say how long: give one of --until TIME and --for DURATION")
    body: Json = {"amount": plain_usd(by)} if by is not None else {"max_limit": plain_usd(to or 0)}
    body |= {"until": until} if until is not None else {"duration": duration}
    _, made = _change(app_dir, budget, "PUT", "override", _with_reason(body, reason))
    raised = made.get("override") or {}
    _done(f"raised the budget {_name(made)} to {usd(made['effective_max_limit'])} until {raised.get('until')}", made, as_json)


@budgets.command("unraise")
@app_dir_option
@click.argument("budget")
@_reason("end of the raise")
@_JSON
def budgets_unraise(app_dir: Path, budget: str, reason: str, as_json: bool) -> None:
    """Take a raise back before its time. What was granted on it stays granted."""
    _, made = _change(app_dir, budget, "DELETE", "override", _with_reason({}, reason))
    _done(f"the limit of the budget {_name(made)} is {usd(made['effective_max_limit'])} again", made, as_json)


def _change(app_dir: Path, budget: str, method: str, act: str, body: Json) -> tuple[Json, Json]:
    """One act on one budget: (the budget before it, the budget after it)."""
    with management(app_dir) as client:
        found = find_budget(client, budget)
        made: Json = client.call(method, item(BUDGETS, found, act), body)["budget"]
    return found, made


def _with_reason(body: Json, reason: str) -> Json:
    return {**body, "reason": reason} if reason else body


def _done(line: str, budget: Json, as_json: bool) -> None:
    announce(line)
    if as_json:
        print_json(budget)


def _left(budget: Json) -> str:
    return f"{usd(budget['remaining'])} of {usd(budget['effective_max_limit'])} left"


def _name(budget: Json) -> str:
    return str(budget.get("name") or budget["id"])

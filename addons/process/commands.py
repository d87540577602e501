"""The commands that look at and change the governance: keys, status, verify, doctor, admin-token."""

import json
import sys
import time
from pathlib import Path

import click

from addons.process.amounts import BudgetText
from addons.process.cli import BUDGET, app_dir_option
from addons.process.client import ConsoleClient, Json, find_running, read_admin_token
from addons.process.common import announce, budget_body, confirm, now_ms, owner_id, print_json
from addons.process.management import KEYS, find_key, item, list_budgets, list_keys, management
from addons.process.text import nanos_of, rounded_usd, table, usd
from store.errors import UserError


@click.group()
def keys() -> None:
    """Virtual keys: who may call, where, and under which budgets.

    A virtual key (sk-bf-...) stands for a person, a tool or a team. Programs send it in place of a provider key, or it rides in the
    proxy address that "tollgate env" and "tollgate exec" set.
    """


@keys.command("list")
@app_dir_option
@click.option("--json", "as_json", is_flag=True, help="The API's own objects, values included.")
def keys_list(app_dir: Path, as_json: bool) -> None:
    """Every virtual key with its state, providers and budgets."""
    with management(app_dir) as client:
        found = list_keys(client)
    if as_json:
        print_json(found)
    elif not found:
        print("no virtual keys yet: tollgate keys create NAME makes one")
    else:
        rows = [[key["name"], _state(key), _providers(key), _budget_texts(key), _hint(key)] for key in found]
        print(table(["NAME", "STATE", "PROVIDERS", "BUDGETS", "VALUE"], rows), end="")


@keys.command("create")
@app_dir_option
@click.argument("name")
@click.option("--budget", "limits", type=BUDGET, multiple=True, metavar="AMOUNT[/WINDOW]", help="2usd/1h, $50/1d; may repeat.")
@click.option("--provider", "providers", multiple=True, help="Only this provider; may repeat. Default: every provider.")
@click.option("--model", "models", multiple=True, help="Only this model; may repeat. Default: every model.")
@click.option("--team", help="Team whose caps bind the key too (id or name).")
@click.option("--customer", help="Customer whose caps bind the key too (id or name).")
@click.option("--expires", metavar="TIME", help="When it stops, such as 2026-12-31T23:59:00Z.")
@click.option("--description", default="")
def keys_create(
    app_dir: Path, name: str, limits: tuple[BudgetText, ...], providers: tuple[str, ...], models: tuple[str, ...],
    team: str | None, customer: str | None, expires: str | None, description: str,
) -> None:  # fmt: skip
    """Make a virtual key and print its value on stdout."""
    with management(app_dir) as client:
        body: Json = {
            "name": name,
            "description": description,
            "provider_configs": _provider_configs(providers, models),
            "budgets": [budget_body(limit) for limit in limits],
            **_owner(client, team, customer),
        }
        if expires is not None:
            body["expires_at"] = expires
        made = client.call("POST", KEYS, body)["virtual_key"]
    announce(f"made the virtual key {made['name']}; its value, on the next line, opens it:")
    print(made["value"])


@keys.command("update")
@app_dir_option
@click.argument("key")
@click.option("--name", help="A new name.")
@click.option("--enable/--disable", "active", default=None, help="Switch it on or off.")
@click.option("--provider", "providers", multiple=True, help="The providers it may use from now on; may repeat.")
@click.option("--model", "models", multiple=True, help="The models it may use from now on; may repeat.")
@click.option("--team", help="Move it to this team (id or name).")
@click.option("--customer", help="Move it to this customer (id or name).")
@click.option("--expires", metavar="TIME", help="When it stops; an empty text: never.")
@click.option("--description")
def keys_update(
    app_dir: Path, key: str, name: str | None, active: bool | None, providers: tuple[str, ...], models: tuple[str, ...],
    team: str | None, customer: str | None, expires: str | None, description: str | None,
) -> None:  # fmt: skip
    """Change a virtual key (id or name). What it has spent stays."""
    with management(app_dir) as client:
        found = find_key(client, key)
        wanted = {"name": name, "is_active": active, "expires_at": expires, "description": description}
        body: Json = {field: value for field, value in wanted.items() if value is not None}
        body |= _owner(client, team, customer)
        if providers or models:
            kept = tuple(config["provider"] for config in found.get("provider_configs") or [])
            body["provider_configs"] = _provider_configs(providers or kept, models)
        if not body:
            raise UserError("nothing to change: say what, see tollgate keys update --help")
        client.call("PUT", item(KEYS, found), body)
    announce(f"changed the virtual key {name or found['name']}")


@keys.command("disable")
@app_dir_option
@click.argument("key")
def keys_disable(app_dir: Path, key: str) -> None:
    """Switch a virtual key off: its calls are refused from now on. "keys update KEY --enable" switches it on again."""
    with management(app_dir) as client:
        found = find_key(client, key)
        client.call("PUT", item(KEYS, found), {"is_active": False})
    announce(f"switched off the virtual key {found['name']}")


@keys.command("rotate")
@app_dir_option
@click.argument("key")
def keys_rotate(app_dir: Path, key: str) -> None:
    """Give a virtual key a new value and print it on stdout; the old value stops at once."""
    with management(app_dir) as client:
        found = find_key(client, key)
        made = client.call("POST", item(KEYS, found, "rotate"))["virtual_key"]
    announce(f"the virtual key {found['name']} has a new value, on the next line:")
    print(made["value"])


@keys.command("delete")
@app_dir_option
@click.argument("key")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def keys_delete(app_dir: Path, key: str, yes: bool) -> None:
    """Delete a virtual key with its budgets. What it spent stays in the ledger and in the logs."""
    with management(app_dir) as client:
        found = find_key(client, key)
        confirm(f"Delete the virtual key {found['name']} and its budgets?", yes)
        client.call("DELETE", item(KEYS, found))
    announce(f"deleted the virtual key {found['name']}")


@click.command()
@app_dir_option
@click.option("--json", "as_json", is_flag=True, help="For programs; amounts in USD as text.")
@click.option("--watch", is_flag=True, help="Again every two seconds until Ctrl-C.")
def status(app_dir: Path, as_json: bool, watch: bool) -> None:
    """Budgets, what is spent of them, and when they run out at the present pace."""
    from addons.process.status import status_json, status_text

    while True:
        running = find_running(app_dir)
        with management(app_dir) as client:
            found = list_budgets(client)
        if as_json:
            print(json.dumps(status_json(running, found, now_ms()), indent=None if watch else 2), flush=True)
        else:
            clear = "\x1b[H\x1b[2J" if watch and sys.stdout.isatty() else ""
            print(clear + status_text(app_dir, running, found, now_ms()), end="", flush=True)
        if not watch:
            return
        time.sleep(2)


@click.command()
@app_dir_option
@click.option("--mend", is_flag=True, help="Make balances and open holds anew from the rows where they differ.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify(app_dir: Path, mend: bool, as_json: bool) -> int:
    """Replay the ledger's rows and compare them with every balance and every open hold.

    Works beside a running gateway. Exit code 0 when everything agrees, 1 when something differs.
    """
    from addons.process.books import verify_books

    return verify_books(app_dir, mend=mend, as_json=as_json)


@click.command()
@app_dir_option
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Default: APP_DIR/config.json.")
@click.option("--probe", is_flag=True, help="Also try to reach a provider without the gateway, to see whether egress is closed.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def doctor(app_dir: Path, config: Path | None, probe: bool, as_json: bool) -> int:
    """Look at ports, CA, stores, configuration, providers and prices; say whether caps are enforced or advisory, and what to do.

    A cap is enforced only where there is no way round it: the provider keys live in the gateway, or the network lets nothing else
    out. Exit code 0 when nothing is wrong, 1 otherwise.
    """
    from addons.process.doctor import examine

    return examine(app_dir, config, probe=probe, as_json=as_json)


@click.command("admin-token")
@app_dir_option
@click.option("--rotate", is_flag=True, help="Make a new token; links and sessions of the old one end.")
def admin_token(app_dir: Path, rotate: bool) -> None:
    """Print the link that opens the dashboard; it carries the token from APP_DIR/admin.token, so keep it to yourself."""
    running = find_running(app_dir)
    if rotate:
        from addons.console.auth import rotate_admin_token

        if running is not None:
            # It would keep the old token, and every command would be locked out of it.
            raise UserError(f"stop the gateway first (process {running.pid}): it reads the token when it starts")
        rotate_admin_token(app_dir / "admin.token")
    token = read_admin_token(app_dir)
    if token is None:
        raise UserError(f"{app_dir} has no admin token yet: start the gateway once with tollgate serve")
    if running is None:
        announce(f"no gateway runs in {app_dir} now; the link works at its usual address once it does")
    print(f"{running.console if running else 'http://127.0.0.1:8082'}/?token={token}")


def _provider_configs(providers: tuple[str, ...], models: tuple[str, ...]) -> list[Json]:
    return [{"provider": provider, "allowed_models": list(models or ("*",)), "key_ids": ["*"]} for provider in providers or ("*",)]


def _owner(client: ConsoleClient, team: str | None, customer: str | None) -> Json:
    if team and customer:
        raise UserError("a key belongs to a team or to a customer, not to both: leave out --team or --customer")
    if team:
        return {"team_id": owner_id(client, "team", team)}
    return {"customer_id": owner_id(client, "customer", customer)} if customer else {}


def _state(key: Json) -> str:
    if not key.get("is_active", True):
        return "disabled"
    expires = key.get("expires_at")
    return f"until {expires}" if expires else "active"


def _providers(key: Json) -> str:
    names = [str(config["provider"]) for config in key.get("provider_configs") or []]
    return ", ".join("any" if name == "*" else name for name in names) or "none"


def _budget_texts(key: Json) -> str:
    texts = [
        f"{rounded_usd(nanos_of(budget.get('current_usage', 0)))} of {usd(budget['max_limit'])}"
        + (f" per {budget['reset_duration']}" if budget.get("reset_duration") else "")
        for budget in key.get("budgets") or []
    ]
    return "; ".join(texts) or "none"


def _hint(key: Json) -> str:
    """What of the value may stand in a list that somebody may look at over a shoulder."""
    return str(key.get("value_hint") or "")

"""`tollgate keys`: list, show, make, change, rotate, switch off and on, delete virtual keys."""

from collections.abc import Iterator
from pathlib import Path

import click

from addons.process.amounts import BudgetText
from addons.process.cli import BUDGET, WholeGroup, app_dir_option
from addons.process.client import ConsoleClient, Json
from addons.process.common import announce, budget_body, confirm, now_ms, owner_id, print_json
from addons.process.management import KEYS, find_key, item, list_keys, management
from addons.process.text import nanos_of, rounded_usd, table, usd
from store.clock import ms_from_iso
from store.errors import UserError

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the key as the API shows it.")


@click.group(cls=WholeGroup)
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


@keys.command("show")
@app_dir_option
@click.argument("key")
@_JSON
def keys_show(app_dir: Path, key: str, as_json: bool) -> None:
    """Everything about one virtual key (id, name or value); its value only with --json, and only where the store keeps it."""
    with management(app_dir) as client:
        found = find_key(client, key)
    if as_json:
        print_json(found)
    else:
        print(table(["", ""], list(_facts(found))).partition("\n")[2], end="")


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
@_JSON
def keys_create(
    app_dir: Path, name: str, limits: tuple[BudgetText, ...], providers: tuple[str, ...], models: tuple[str, ...],
    team: str | None, customer: str | None, expires: str | None, description: str, as_json: bool,
) -> None:  # fmt: skip
    """Make a virtual key and print its value on stdout."""
    with management(app_dir) as client:
        body: Json = {
            "name": name,
            "description": description,
            "provider_configs": _new_configs(providers, models),
            "budgets": [budget_body(limit) for limit in limits],
            **_owner(client, team, customer),
        }
        if expires is not None:
            body["expires_at"] = expires
        made = client.call("POST", KEYS, body)["virtual_key"]
    if as_json:
        print_json(made)
        return
    announce(f"made the virtual key {made['name']}; its value, on the next line, opens it:")
    print(made["value"])


@keys.command("update")
@app_dir_option
@click.argument("key")
@click.option("--name", help="A new name.")
@click.option("--enable/--disable", "active", default=None, help="Switch it on or off.")
@click.option("--provider", "providers", multiple=True, help="The providers it may use from now on; may repeat.")
@click.option("--model", "models", multiple=True, help="The models it may use from now on; may repeat.")
@click.option("--allow-model", "more_models", multiple=True, help="One model more that it may use; may repeat.")
@click.option("--team", help="Move it to this team (id or name); an empty text: out of its team.")
@click.option("--customer", help="Move it to this customer (id or name); an empty text: away from its customer.")
@click.option("--expires", metavar="TIME", help="When it stops, such as 2026-12-31T23:59:00Z; an empty text: never.")
@click.option("--description")
@_JSON
def keys_update(
    app_dir: Path, key: str, name: str | None, active: bool | None, providers: tuple[str, ...], models: tuple[str, ...],
    more_models: tuple[str, ...], team: str | None, customer: str | None, expires: str | None, description: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Change a virtual key (id or name). What it has spent stays, and so does what you do not name."""
    if models and more_models:
        raise UserError("--model says all models from now on, --allow-model adds to those there are: give one of them")
    with management(app_dir) as client:
        found = find_key(client, key)
        wanted = {"name": name, "is_active": active, "expires_at": expires, "description": description}
        body: Json = {field: value for field, value in wanted.items() if value is not None}
        body |= _owner(client, team, customer)
        if providers or models or more_models:
            body["provider_configs"] = _changed_configs(found, providers, models, more_models)
        if not body:
            raise UserError("nothing to change: say what, see tollgate keys update --help")
        made = client.call("PUT", item(KEYS, found), body)["virtual_key"]
    _done(f"changed the virtual key {made['name']}", made, as_json)


@keys.command("disable")
@app_dir_option
@click.argument("key")
@_JSON
def keys_disable(app_dir: Path, key: str, as_json: bool) -> None:
    """Switch a virtual key off: its calls are refused from now on. "keys enable KEY" switches it on again."""
    made = _switch(app_dir, key, on=False)
    _done(f"switched off the virtual key {made['name']}", made, as_json)


@keys.command("enable")
@app_dir_option
@click.argument("key")
@_JSON
def keys_enable(app_dir: Path, key: str, as_json: bool) -> None:
    """Switch a virtual key on again."""
    made = _switch(app_dir, key, on=True)
    expired = f", but it ended at {made['expires_at']}: give it another end with keys update --expires" if _is_over(made) else ""
    _done(f"switched on the virtual key {made['name']}{expired}", made, as_json)


@keys.command("rotate")
@app_dir_option
@click.argument("key")
@click.option("--overlap", metavar="TIME", help="How long the old value keeps working beside the new one: 30m, 24h. Default: not.")
@click.option("--end-overlap", is_flag=True, help="Make no new value: the old one of the last rotation stops now.")
@_JSON
def keys_rotate(app_dir: Path, key: str, overlap: str | None, end_overlap: bool, as_json: bool) -> None:
    """Give a virtual key a new value and print it on stdout; the old value stops at once, or after --overlap."""
    if overlap is not None and end_overlap:
        raise UserError("--overlap and --end-overlap contradict each other; give one of them")
    with management(app_dir) as client:
        found = find_key(client, key)
        if end_overlap:
            client.call("DELETE", item(KEYS, found, "previous-value"))
            announce(f"the earlier value of the virtual key {found['name']} has stopped")
            return
        body = {"overlap": overlap} if overlap is not None else {}
        made = client.call("POST", item(KEYS, found, "rotate"), body)["virtual_key"]
    if as_json:
        print_json(made)
        return
    until = f"; the old one works until {made['previous_value_until']}" if made["previous_value_until"] else ""
    announce(f"the virtual key {found['name']} has a new value, on the next line{until}:")
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


def _new_configs(providers: tuple[str, ...], models: tuple[str, ...]) -> list[Json]:
    return [{"provider": provider, "allowed_models": list(models or ("*",)), "key_ids": ["*"]} for provider in providers or ("*",)]


def _changed_configs(key: Json, providers: tuple[str, ...], models: tuple[str, ...], more: tuple[str, ...]) -> list[Json]:
    """The wanted provider configs: those that stay keep what is not named, with their budgets, weights and provider keys."""
    present: list[Json] = key.get("provider_configs") or []
    made: list[Json] = []
    for config in present:
        if not providers or config["provider"] in providers:
            kept: Json = {"id": config["id"], "provider": config["provider"]}
            allowed = config.get("allowed_models") or []
            if models:
                kept["allowed_models"] = list(models)
            elif more and "*" not in allowed:
                kept["allowed_models"] = list(dict.fromkeys([*allowed, *more]))
            made.append(kept)
    known = {config["provider"] for config in present}
    return made + [config for config in _new_configs(providers, models or more) if providers and config["provider"] not in known]


def _owner(client: ConsoleClient, team: str | None, customer: str | None) -> Json:
    if team and customer:
        raise UserError("a key belongs to a team or to a customer, not to both: leave out --team or --customer")
    made: Json = {}
    for scope, wanted in (("team", team), ("customer", customer)):
        if wanted is not None:
            made[f"{scope}_id"] = owner_id(client, scope, wanted) if wanted else ""
    return made


def _switch(app_dir: Path, key: str, *, on: bool) -> Json:
    with management(app_dir) as client:
        made: Json = client.call("PUT", item(KEYS, find_key(client, key)), {"is_active": on})["virtual_key"]
    return made


def _done(line: str, key: Json, as_json: bool) -> None:
    announce(line)
    if as_json:
        print_json(key)


def _facts(key: Json) -> Iterator[list[str]]:
    """Name and value of each line that `show` prints."""
    yield ["name", str(key["name"])]
    yield ["id", str(key["id"])]
    yield ["state", _state(key)]
    yield ["value", _hint(key)]
    if key.get("previous_value_until"):
        yield ["earlier value", f"works until {key['previous_value_until']}"]
    if key.get("description"):
        yield ["description", str(key["description"])]
    for scope in ("team", "customer"):
        if key.get(scope):
            yield [scope, str(key[scope]["name"])]
    for text in _limits(key):
        yield ["budget" if " of $" in text else "limit", text]
    for config in key.get("provider_configs") or []:
        models = ", ".join(config.get("allowed_models") or []) or "no model"
        weight = f", weight {config['weight']}" if config.get("weight") is not None else ""
        yield ["provider", f"{_any(config['provider'])}: {_any(models)}{weight}"]
        for text in _limits(config):
            yield ["", text]


def _state(key: Json) -> str:
    if not key.get("is_active", True):
        return "disabled"
    expires = key.get("expires_at")
    if _is_over(key):
        return f"expired {expires}"
    return f"until {expires}" if expires else "active"


def _is_over(key: Json) -> bool:
    return bool(key.get("expires_at")) and ms_from_iso(key["expires_at"]) <= now_ms()


def _any(name: str) -> str:
    return "any" if name == "*" else name


def _providers(key: Json) -> str:
    names = [str(config["provider"]) for config in key.get("provider_configs") or []]
    return ", ".join(map(_any, names)) or "none"


def _budget_texts(key: Json) -> str:
    texts = [
        f"{rounded_usd(nanos_of(budget.get('current_usage', 0)))} of {usd(budget['max_limit'])}"
        + (f" per {budget['reset_duration']}" if budget.get("reset_duration") else "")
        for budget in key.get("budgets") or []
    ]
    return "; ".join(texts) or "none"


def _limits(owner: Json) -> Iterator[str]:
    """The caps of a key or a provider config, with what is used."""
    if owner.get("budgets"):
        yield from _budget_texts(owner).split("; ")
    limit = owner.get("rate_limit") or {}
    for unit in ("token", "request"):
        if limit.get(f"{unit}_max_limit") is not None:
            used = limit.get(f"{unit}_current_usage", 0)
            yield f"{used} of {limit[f'{unit}_max_limit']} {unit}s per {limit.get(f'{unit}_reset_duration')}"
    if limit.get("concurrent_max_limit") is not None:
        yield f"{limit['concurrent_max_limit']} parallel calls"


def _hint(key: Json) -> str:
    """What of the value may stand in a list that somebody may look at over a shoulder."""
    return str(key.get("value_hint") or "")

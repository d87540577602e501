"""`tollgate unconfirmed`: calls whose cost nobody could learn, and a person's word on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from addons.process.amounts import parse_cost
from addons.process.cli import WholeGroup, app_dir_option
from addons.process.client import ConsoleClient, Json
from addons.process.common import announce, print_json
from addons.process.management import management
from addons.process.text import few, table, usd
from store.errors import NotFound, UserError
from store.money import plain_usd

UNCONFIRMED = "/api/governance/unconfirmed"


class CostType(click.ParamType[int]):
    """What a call cost, as nano-dollars; nothing is an answer too."""

    name = "amount"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_cost(value)
        except UserError as fault:
            self.fail(str(fault), param, ctx)


@click.group("unconfirmed", cls=WholeGroup)
def unconfirmed() -> None:
    """Calls that were charged what they held, because a process died before their cost was known.

    Their real cost still counts if it arrives. Otherwise look at the provider's dashboard, and confirm or correct them.
    """


@unconfirmed.command("list")
@app_dir_option
@click.option("--json", "as_json", is_flag=True, help="The API's own objects.")
def unconfirmed_list(app_dir: Path, as_json: bool) -> None:
    """Every unconfirmed call with what it was charged, oldest first."""
    with management(app_dir) as client:
        answer = client.get(UNCONFIRMED)
    calls: list[Json] = answer["calls"]
    if as_json:
        print_json(calls)
        return
    if not calls:
        print("no call is unconfirmed")
        return
    print(table(["CALL", "HELD AT", "KEY", "MODEL", "CHARGED", "TOKENS", "WHY"], [_row(call) for call in calls]), end="")
    if answer["total_count"] > len(calls):
        print(f"and {answer['total_count'] - len(calls)} more")


@unconfirmed.command("confirm")
@app_dir_option
@click.argument("call")
@click.option("--cost", type=CostType(), metavar="AMOUNT", help="What it really cost: 0.0123usd, 5c, 0. Default: as charged.")
@click.option("--tokens", type=click.IntRange(0), help="How many tokens it really used. Default: as charged.")
@click.option("--reason", required=True, help="How you know. Kept in the ledger beside the correction.")
@click.option("--json", "as_json", is_flag=True, help="Print what is booked now.")
def unconfirmed_confirm(app_dir: Path, call: str, cost: int | None, tokens: int | None, reason: str, as_json: bool) -> None:
    """Confirm CALL as it was charged, or correct it. CALL is an id, or enough of its beginning or end to tell it from the others.

    \b
      tollgate unconfirmed confirm 019ab3 --cost 0.0123usd --reason "the provider's dashboard"
    """
    body: Json = {"reason": reason}
    if cost is not None:
        body["cost"] = plain_usd(cost)
    if tokens is not None:
        body["tokens"] = tokens
    with management(app_dir) as client:
        call_id = _pick(client, call)
        made: Json = client.call("POST", f"{UNCONFIRMED}/{quote(call_id, safe='')}/confirm", body)["call"]
    was = "" if made["cost"] == made["posted"] else f" in place of {usd(made['posted'])}"
    announce(f"the call {made['call_id']} is booked at {usd(made['cost'])}{was}")
    if as_json:
        print_json(made)


def _pick(client: ConsoleClient, wanted: str) -> str:
    """The id of the one call that is meant. Raises UserError with the candidates, NotFound."""
    calls: Sequence[Json] = client.get(UNCONFIRMED)["calls"]
    ids = [str(call["call_id"]) for call in calls]
    if not wanted:
        raise UserError("say which call: tollgate unconfirmed list shows their ids")
    if wanted in ids:
        return wanted
    found = [call_id for call_id in ids if call_id.startswith(wanted) or call_id.endswith(wanted)]
    if len(found) > 1:
        raise UserError(f"several unconfirmed calls begin or end with {wanted!r}: give more of one of {few(found)}")
    if not found and len(wanted) < 36:
        raise NotFound(f"no unconfirmed call begins or ends with {wanted!r}: tollgate unconfirmed list shows them")
    return found[0] if found else wanted


def _row(call: Json) -> list[str]:
    return [
        str(call["call_id"]),
        str(call["held_at"]),
        str(call.get("virtual_key_name") or call.get("virtual_key_id") or "-"),
        "/".join(part for part in (str(call.get("provider") or ""), str(call.get("model") or "")) if part) or "-",
        usd(call["cost"]),
        str(call["tokens"]),
        str(call.get("note") or ""),
    ]

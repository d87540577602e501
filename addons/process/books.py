"""`verify`: the ledger's rows against its balances, told in plain lines."""

import json
from pathlib import Path

from addons.process.stores import command_actor, opened_database, settings_of
from store.clock import SystemClock, iso_utc
from store.config_store.audit import ChainReport, check_chain
from store.config_store.edits import Edit, write_audit_row
from store.ledger.rows import NO_WINDOW
from store.ledger.verify import Difference, VerifyReport, rebuild, verify
from store.money import format_usd, plain_usd

CONTRADICTIONS = frozenset({"amount", "unknown hold", "unknown cap"})
SHOWN = 100
"""How many differences a person is shown."""


def verify_books(app_dir: Path, *, mend: bool, as_json: bool) -> int:
    """Print what a replay found; 0 when rows and caches agree, 1 when they differed. `mend` makes the caches anew from the rows.

    Raises UserError, StoreUnavailable.
    """
    clock = SystemClock()
    with opened_database(app_dir, settings_of(app_dir), clock, read_only=not mend) as database:
        report = rebuild(database, clock) if mend else verify(database, clock)
        if mend and not report.clean:
            details = {"differences": len(report.differences)}
            with database.write() as connection:
                edit = Edit(connection, "mend", "ledger", "", details=details)
                write_audit_row(connection, command_actor(), edit, None, None, at_ms=clock.now_ms())
        chain = check_chain(database)
    if as_json:
        print(json.dumps({**report_json(report), "audit_log": chain_json(chain)}, indent=2))
    else:
        print(f"{report_text(report, mended=mend)}\n{chain_text(chain)}")
    return 0 if report.clean and chain.holds else 1


def chain_text(chain: ChainReport) -> str:
    """The audit log for people."""
    if chain.holds:
        last = f", the last one's digest is {chain.digest}" if chain.digest else ""
        return f"the audit log is unbroken: {chain.rows} rows{last}"
    return (
        f"the audit log was TAMPERED WITH: {chain.fault}; the {chain.rows} rows before that are as they were written. "
        "Compare it with an export or a backup of the database"
    )


def chain_json(chain: ChainReport) -> dict[str, object]:
    """The audit log for programs."""
    return {"clean": chain.holds, "rows": chain.rows, "digest": chain.digest, "fault": chain.fault}


def report_text(report: VerifyReport, *, mended: bool) -> str:
    """The report for people."""
    counted = (
        f"{report.posts} postings of {report.holds} calls, {report.open_holds} still open,"
        f" {report.entries} other entries; all calls together cost {format_usd(report.cost_nanos)}"
    )
    if report.clean:
        return f"the books agree: {counted}"
    lines = [f"the books DIFFER in {len(report.differences)} place(s): {counted}"]
    lines += [f"  {difference_text(difference)}" for difference in report.differences[:SHOWN]]
    if len(report.differences) > SHOWN:
        lines.append(f"  and {len(report.differences) - SHOWN} more; --json has them all")
    lines.append(
        "mended from the rows" if mended else "the rows are the truth: tollgate verify --mend makes the balances anew from them"
    )
    if any(difference.what in CONTRADICTIONS for difference in report.differences):
        lines.append("rows that contradict one another cannot be mended: compare them with a backup of the database")
    return "\n".join(lines)


def report_json(report: VerifyReport) -> dict[str, object]:
    """The report for programs."""
    return {
        "clean": report.clean,
        "at": iso_utc(report.at_ms),
        "calls": report.holds,
        "postings": report.posts,
        "entries": report.entries,
        "open_holds": report.open_holds,
        "cost_usd": plain_usd(report.cost_nanos),
        "differences": [
            {
                "what": difference.what,
                "cap_id": difference.cap_id or None,
                "cap_name": difference.cap_name or None,
                "unit": difference.unit or None,
                "window_start": _window_start(difference),
                "call_id": difference.call_id or None,
                "kept": difference.kept,
                "replayed": difference.replayed,
                "text": difference_text(difference),
            }
            for difference in report.differences
        ],
    }


def difference_text(difference: Difference) -> str:
    """`used of 'day' (cap-1) in the window from 2026-11-23T00:00:00Z: the balance says $1.00, the rows say $0.75`."""
    where = f" of '{difference.cap_name or difference.cap_id}' ({difference.cap_id})" if difference.cap_id else ""
    start = _window_start(difference)
    window = f" in the window from {start}" if start else ""
    call = f", call {difference.call_id}" if difference.call_id else ""
    keeper = {"amount": "the row", "unknown hold": "the postings", "open hold": "the list of open holds"}.get(
        difference.what, "the cap" if difference.what in ("limit", "raise") else "the balance"
    )
    kept, replayed = (_amount(value, difference.unit) for value in (difference.kept, difference.replayed))
    should = "it should be" if difference.what == "amount" else "the rows say"
    return f"{difference.what}{where}{window}{call}: {keeper} says {kept}, {should} {replayed}"


def _window_start(difference: Difference) -> str | None:
    start_ms = difference.window_start_ms
    return None if start_ms is None or start_ms == NO_WINDOW else iso_utc(start_ms)


def _amount(value: int | str, unit: str) -> str:
    if isinstance(value, str):
        return value
    return format_usd(value) if unit == "usd" else f"{value} {unit}".strip()

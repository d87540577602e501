"""`verify`: the ledger's rows against its balances, told in plain lines."""

import json
from pathlib import Path

from addons.process.stores import opened_database, settings_of
from store.clock import SystemClock, iso_utc
from store.ledger.verify import VerifyReport, rebuild, verify
from store.money import format_usd, plain_usd


def verify_books(app_dir: Path, *, mend: bool, as_json: bool) -> int:
    """Print what a replay found; 0 when rows and caches agree, 1 when they differed. `mend` makes the caches anew from the rows.

    Raises UserError, StoreUnavailable.
    """
    clock = SystemClock()
    with opened_database(app_dir, settings_of(app_dir), clock, read_only=not mend) as database:
        report = rebuild(database, clock) if mend else verify(database, clock)
    print(json.dumps(report_json(report), indent=2) if as_json else report_text(report, mended=mend))
    return 0 if report.clean else 1


def report_text(report: VerifyReport, *, mended: bool) -> str:
    """The report for people."""
    counted = (
        f"{report.posts} postings of {report.holds} calls, {report.open_holds} still open,"
        f" {report.entries} other entries; all calls together cost {format_usd(report.cost_nanos)}"
    )
    if report.clean:
        return f"the books agree: {counted}"
    lines = [f"the books DIFFER in {len(report.differences)} place(s): {counted}"]
    lines += [f"  {difference}" for difference in report.differences]
    lines.append(
        "mended from the rows" if mended else "the rows are the truth: tollgate verify --mend makes the balances anew from them"
    )
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
        "differences": [str(difference) for difference in report.differences],
    }

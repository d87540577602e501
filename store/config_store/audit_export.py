"""Rows of the audit log as text for other programs: JSON, JSON lines, CSV, and syslog messages of RFC 5424."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from store.clock import iso_utc
from store.config_store.audit import AuditEntry
from store.config_store.json_text import dumps

FIELDS = (
    "sequence", "timestamp", "actor", "method", "address", "action", "kind", "entity_id", "entity_name", "before", "after",
    "details", "reason", "digest",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_PRIORITY = 13 * 8 + 5
"""Facility 13, the audit log; severity 5, notice (RFC 5424 section 6.2.1)."""
_SYSLOG_PARAMS = ("sequence", "actor", "method", "address", "action", "kind", "entity_id", "entity_name", "digest")
_SD_ID = "tollgate@32473"
"""32473 is the enterprise number set aside for examples and for those who have none (RFC 5612)."""


@dataclass(frozen=True, slots=True)
class Form:
    """How rows are written one after the other: what stands before all, between two, and after all."""

    media: str
    suffix: str
    row: Callable[[AuditEntry], bytes]
    head: bytes = b""
    between: bytes = b""
    tail: bytes = b""


def entry_json(entry: AuditEntry) -> dict[str, object]:
    """A row as the API shows it; documents are objects or null."""
    return {
        "sequence": entry.sequence,
        "timestamp": iso_utc(entry.at_ms),
        "actor": entry.actor,
        "method": entry.method,
        "address": entry.address,
        "action": entry.action,
        "kind": entry.kind,
        "entity_id": entry.entity_id,
        "entity_name": entry.entity_name,
        "before": _fragment(entry.before),
        "after": _fragment(entry.after),
        "details": _fragment(entry.details),
        "reason": entry.reason,
        "digest": entry.digest,
    }


def as_json(entry: AuditEntry) -> bytes:
    """A row as JSON."""
    return dumps(entry_json(entry))


def as_json_line(entry: AuditEntry) -> bytes:
    """A row as JSON on a line of its own."""
    return as_json(entry) + b"\n"


def as_csv(entry: AuditEntry) -> bytes:
    """A row as RFC 4180 has it. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    cells = [entry.sequence, iso_utc(entry.at_ms), *(getattr(entry, name) for name in FIELDS[2:])]
    return _csv([_harmless("" if cell is None else str(cell)) for cell in cells])


def as_syslog(entry: AuditEntry) -> bytes:
    """A row as one RFC 5424 message on a line: what it is about as structured data, documents and reason as JSON in the message."""
    params = "".join(f' {name}="{_param(str(getattr(entry, name)))}"' for name in _SYSLOG_PARAMS)
    message = dumps(
        {
            name: _fragment(value) if name != "reason" else value
            for name in ("before", "after", "details", "reason")
            if (value := getattr(entry, name))
        }
    )
    header = f"<{_PRIORITY}>1 {iso_utc(entry.at_ms)} - tollgate - {_message_id(entry.action)} [{_SD_ID}{params}] "
    # A message in UTF-8 begins with a byte order mark (section 6.4).
    return header.encode() + b"\xef\xbb\xbf" + message + b"\n"


FORMS: Mapping[str, Form] = {
    "jsonl": Form("application/x-ndjson", "jsonl", as_json_line),
    "json": Form("application/json", "json", as_json, b"[", b",\n", b"]\n"),
    "csv": Form("text/csv; charset=utf-8", "csv", as_csv, (",".join(FIELDS) + "\r\n").encode()),
    "syslog": Form("text/plain; charset=utf-8", "log", as_syslog),
}


def _fragment(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _csv(cells: list[str]) -> bytes:
    made = io.StringIO()
    csv.writer(made).writerow(cells)
    return made.getvalue().encode()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) or cell.startswith(_FORMULA) else cell


def _message_id(action: str) -> str:
    """Printable ASCII without spaces, at most 32 characters (section 6.2.7)."""
    return re.sub(r"[^!-~]", "_", action)[:32] or "-"


def _param(value: str) -> str:
    """Backslash, quotation mark and bracket are escaped (section 6.3.3); what would break the line is a space."""
    return _CONTROL.sub(" ", re.sub(r'(["\\\]])', r"\\\1", value))

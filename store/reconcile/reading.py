"""From files to documents: unpacked, decoded, and taken for JSON pages or a table by their content."""

import csv
import io
import json
import zlib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from store.errors import UserError

MAX_BYTES = 512 * 1024 * 1024
"""No export of a month is near this; what is larger is a mistake, or a file made to fill the memory."""

_DELIMITERS = (",", "\t", ";")
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Page:
    """One JSON object that may be a page of an API's answer."""

    place: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A file of delimited values: its column names in lower case, and its rows with their line numbers."""

    place: str
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_documents(path: Path) -> list[Page | Table]:
    """The documents of one file: pages one after the other (JSON, a list of pages, or JSON lines), or one table.

    Packed files (gzip) are unpacked. Raises UserError.
    """
    return parse_documents(_text(path), str(path))


def parse_documents(text: str, name: str) -> list[Page | Table]:
    """The documents of a text; `name` stands before each error. Raises UserError."""
    if not text.strip():
        raise UserError(f"{name} is empty")
    if text.lstrip()[0] in "{[":
        return list(_pages(text, name))
    return [_table(text, name)]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory: name the exported files themselves") from None
    except OSError as fault:
        raise UserError(f"{path} cannot be read: {fault.strerror}") from None
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(data, path)
    if len(data) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB: split the export into several files")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text: expected JSON or CSV as the provider exports it") from None


def _unpacked(data: bytes, path: Path) -> bytes:
    """Every member of a gzip file, at most one byte more than is allowed."""
    made = bytearray()
    try:
        while data and len(made) <= MAX_BYTES:
            member = zlib.decompressobj(wbits=31)
            made += member.decompress(data, MAX_BYTES + 1 - len(made))
            if not member.eof:
                if len(made) > MAX_BYTES:
                    break
                raise UserError(f"{path} is a gzip file that ends too early: fetch it again")
            data = member.unused_data.lstrip(b"\0")
    except zlib.error:
        raise UserError(f"{path} is a damaged gzip file: fetch it again") from None
    return bytes(made)


def _pages(text: str, name: str) -> list[Page]:
    found: list[Any] = []
    decoder = json.JSONDecoder(parse_float=Decimal, parse_constant=_no_constant)
    at = _next(text, 0)
    try:
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            found.append(value)
            at = _next(text, end)
    except json.JSONDecodeError as fault:
        raise UserError(f"{name}, line {fault.lineno}, column {fault.colno}: this is not JSON ({fault.msg})") from None
    except (ValueError, ArithmeticError):
        raise UserError(f"{name}: holds a number that cannot be one") from None
    except RecursionError:
        raise UserError(f"{name}: is nested too deeply to be a usage export") from None
    bodies = [body for value in found for body in _bodies(value)]
    single = len(bodies) == 1
    return [_page(body, name if single else f"{name}, page {number}") for number, body in enumerate(bodies, 1)]


def _bodies(value: Any) -> list[Any]:
    """The pages in one JSON value: itself, a list of pages, or a list of buckets taken out of a page."""
    if not isinstance(value, list):
        return [value]
    if value and all(isinstance(each, dict) and "results" in each for each in value):
        return [{"data": value, "has_more": False}]
    return value


def _page(body: Any, place: str) -> Page:
    if not isinstance(body, dict):
        raise UserError(f"{place}: expected a page of a usage export, a JSON object with data and has_more, not {_shown(body)}")
    error = body.get("error")
    if error is not None:
        kind = (error.get("type") or error.get("code")) if isinstance(error, dict) else None
        said = f" ({kind})" if isinstance(kind, str) and kind.replace("_", "").isalnum() else ""
        raise UserError(f"{place}: this is an error answer of the provider{said}, not an export: ask again")
    return Page(place, body)


def _table(text: str, name: str) -> Table:
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    header = lines[first]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO("\n".join(lines[first:]), newline=""), delimiter=delimiter, strict=True)
    try:
        columns = tuple(column.strip().lower() for column in next(reader))
        rows = []
        for values in reader:
            if not any(value.strip() for value in values):
                continue
            line = first + reader.line_num
            if len(values) != len(columns):
                raise UserError(f"{name}, line {line}: has {len(values)} values where the first line names {len(columns)} columns")
            rows.append((line, dict(zip(columns, (value.strip() for value in values), strict=True))))
    except csv.Error as fault:
        raise UserError(f"{name}, line {first + reader.line_num}: this is not CSV ({fault})") from None
    return Table(name, columns, tuple(rows))


def _next(text: str, at: int) -> int:
    """The next character that is neither white space nor a record separator."""
    while at < len(text) and text[at] in " \t\r\n\x1e":
        at += 1
    return at


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

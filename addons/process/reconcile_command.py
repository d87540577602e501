"""`reconcile`: a provider's own usage export compared with the ledger, told in a table and in sentences."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from addons.process.cli import app_dir_option
from store.errors import UserError
from store.money import nanos_from_usd

if TYPE_CHECKING:
    from store.clock import Clock
    from store.database import Database
    from store.reconcile.compare import PriceOf
    from store.reconcile.reconcile import Asked, Books
    from store.reconcile.types import Report
    from store.settings import Settings

_DAY_MS = 86_400_000
_UNIX_EPOCH = date(1970, 1, 1).toordinal()


@click.command()
@app_dir_option
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--provider", type=click.Choice(["openai", "anthropic"]), help="Whose export it is. Default: seen from its content.")
@click.option("--from", "first", metavar="DAY", help="The first UTC day to compare, such as 2026-11-20. Default: the export's.")
@click.option("--to", "last", metavar="DAY", help="The last UTC day to compare, included.")
@click.option("--tolerance", default="0.01", show_default=True, metavar="USD", help="How far amounts may differ per day and model.")
@click.option("--json", "as_json", is_flag=True, help="For programs; amounts in USD as text.")
def reconcile(
    app_dir: Path, files: tuple[Path, ...], provider: str | None, first: str | None, last: str | None, tolerance: str, as_json: bool
) -> int:
    """Compare a provider's own usage export with the ledger, per UTC day and model.

    FILE is what OpenAI's or Anthropic's usage and cost APIs answered (JSON pages, several in a file too, gzip too), or the CSV of
    their dashboards; docs/reconcile.md says how to get them. Give usage and costs together to compare tokens and money.

    Exit code 0 when everything agrees (tokens exactly, money within the tolerance) or is explained by calls that the books
    themselves mark as inexact or that ran near midnight; 1 when something differs; 2 for files that cannot be read.
    """
    from addons.process.reconcile_report import report_json, report_text

    report = _report(app_dir, files, provider, asked_days(first, last), tolerance_nanos(tolerance))
    print(json.dumps(report_json(report), indent=2) if as_json else report_text(report))
    return 0 if report.agrees else 1


def tolerance_nanos(text: str) -> int:
    """Nano-dollars of a tolerance such as `0.01`. Raises UserError."""
    try:
        nanos = nanos_from_usd(text.strip().removeprefix("$"))
    except ValueError:
        raise UserError(f"--tolerance {text!r} is not an amount in USD: write it like 0.01") from None
    if nanos < 0:
        raise UserError("--tolerance cannot be negative: write 0 to compare every nano-dollar")
    return nanos


def asked_days(first: str | None, last: str | None) -> "Asked":
    """The start of the first day and the end of the last; None: as far as the export goes. Raises UserError."""
    start = None if first is None else _day_ms(first, "--from")
    end = None if last is None else _day_ms(last, "--to") + _DAY_MS
    if start is not None and end is not None and end <= start:
        raise UserError(f"--from {first} is after --to {last}")
    return start, end


def _day_ms(text: str, option: str) -> int:
    try:
        return (date.fromisoformat(text).toordinal() - _UNIX_EPOCH) * _DAY_MS
    except ValueError:
        raise UserError(f"{option} {text!r} is not a day: write it like 2026-11-20") from None


def _report(app_dir: Path, files: tuple[Path, ...], provider: str | None, asked: "Asked", tolerance: int) -> "Report":
    from addons.process.stores import settings_of
    from store.clock import SystemClock
    from store.reconcile.export import read_export
    from store.reconcile.reconcile import reconcile as compare

    export = read_export(files, provider)
    clock, settings = SystemClock(), settings_of(app_dir)
    price_of = _prices(app_dir, settings, export.provider)
    with _books(app_dir, settings, clock, export.provider) as books:
        return compare(books, export, clock=clock, price_of=price_of, asked=asked, tolerance_nanos=tolerance)


@contextmanager
def _books(app_dir: Path, settings: "Settings", clock: "Clock", provider: str) -> "Iterator[Books]":
    """Ledger and logs, opened for reading beside a running gateway. Raises UserError, StoreUnavailable."""
    from addons.process.stores import opened_database
    from store.reconcile.reconcile import Books

    with opened_database(app_dir, settings, clock, read_only=True) as ledger:
        logs = _logs(app_dir, settings, clock)
        try:
            yield Books(ledger, logs, billed_names(provider, settings, ledger))
        finally:
            if logs is not None:
                logs.close()


def _logs(app_dir: Path, settings: "Settings", clock: "Clock") -> "Database | None":
    from store.logs.opening import open_logs_store
    from store.opening import LOGS_FILE, sqlite_path

    path = sqlite_path(settings.logs_store, app_dir, LOGS_FILE)
    if path is not None and not path.is_file():
        return None
    return open_logs_store(app_dir, settings, clock=clock, read_only=True)


def billed_names(provider: str, settings: "Settings", ledger: "Database") -> frozenset[str]:
    """The names under which calls are billed by this provider: its own, and of those made on its base that live at its address."""
    from store.config_store.read import providers

    with ledger.read() as connection:
        configured = [(each.name, each.base_provider, each.base_url) for each in providers(connection)]
    if settings.file_only:
        for name, spec in settings.providers.items():
            base = spec.custom_provider_config.base_provider_type if spec.custom_provider_config else None
            configured.append((name, base, str(spec.network_config.base_url) if spec.network_config.base_url else None))
    others = {name for name, base, url in configured if base == provider and _lives_there(provider, url)}
    return frozenset({provider, *others})


def _lives_there(provider: str, base_url: str | None) -> bool:
    """Whether an address is the provider's own: a server elsewhere that speaks its protocol is not billed by it."""
    from addons.providers.registry import FAMILIES

    host = urlsplit(base_url).hostname if base_url else None
    return host is None or host in FAMILIES[provider].hosts


def _prices(app_dir: Path, settings: "Settings", provider: str) -> "PriceOf":
    from store.prices.book import PriceBook
    from store.prices.overrides import load_overrides

    file = settings.gateway.prices.file
    book = PriceBook.load(load_overrides(app_dir / file) if file else None)
    return lambda model, at_ms: book.price(provider, model, at_ms)

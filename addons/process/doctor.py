"""`doctor`: looks at everything a gateway needs, says what is wrong, what to do, and whether its caps can be walked round."""

import http.client
import json
import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from addons.opening import BUILTIN, store_on
from addons.process.ca import ca_certificate_path, ca_expiry, ca_key_path, trust_files
from addons.process.client import ConsoleClient, RunningGateway, find_running
from addons.process.doctor_governance import (
    config_mode,
    ended_keys,
    has_own_price,
    idle_caps,
    idle_rules,
    ignored_entries,
    named_models,
)
from addons.process.doctor_stores import damage_of, engine_of, is_empty
from addons.process.enforcement import Circumstances, own_provider_keys, reachable_directly, verdict
from addons.process.findings import Finding, Level
from addons.process.stores import config_file, config_is_missing, config_place_of, settings_of
from addons.process.text import few, printable
from store.clock import Ids, SystemClock
from store.config_store.build import load_snapshot, unusable_keys
from store.config_store.exposed import exposed_files
from store.config_store.read import Governance, load_governance
from store.config_store.secret_text import environ_of
from store.config_store.snapshot import ANY, Snapshot, VirtualKey
from store.config_store.store import ConfigStore
from store.database import Database
from store.errors import StoreUnavailable, UserError
from store.ledger.types import Enforcement, Unit
from store.logs.opening import logs_as_found
from store.opening import LOGS_FILE, open_config_database, place_of, sqlite_path
from store.settings import Settings

DEFAULT_PORTS = ((8080, "gateway", "--port"), (8081, "inspector", "--inspect-port"), (8082, "dashboard", "--console-port"))
_PORT_SECONDS = 3.0
_SOON_DAYS = 30
_UNPRICED_DAYS = 7
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Patient:
    """What the checks look at; filled as they go, so that a later one can use what an earlier one opened."""

    app_dir: Path
    config: Path | None
    environ: Mapping[str, str]
    probe: bool
    running: RunningGateway | None = None
    settings: Settings | None = None
    store: ConfigStore | None = None
    snapshot: Snapshot | None = None
    governance: Governance | None = None
    logs: Database | None = None
    opened: list[Database] = field(default_factory=list)


type Check = Callable[[Patient], Iterator[Finding]]


def examine(app_dir: Path, config: Path | None, *, probe: bool, as_json: bool) -> int:
    """Print every finding; 1 when one is a failure."""
    patient = Patient(app_dir, config, environ_of(app_dir, os.environ), probe)
    try:
        findings = [finding for area, check in _CHECKS for finding in _run(area, check, patient)]
    finally:
        for database in patient.opened:
            database.close()
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        sys.stdout.write("".join(_lines(findings)))
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


def _run(area: str, check: Check, patient: Patient) -> Iterable[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(patient))
    except (UserError, StoreUnavailable, OSError) as fault:
        found.append(Finding(area, Level.FAIL, str(fault)))
    return found


def _lines(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.level:<4}  {finding.area:<13}  {printable(finding.text)}\n"
        if finding.advice:
            yield f"{'':<4}  {'':<13}  -> {printable(finding.advice)}\n"


def check_directory(patient: Patient) -> Iterator[Finding]:
    """The app directory is there, ours to write, and closed to others."""
    path = patient.app_dir
    if not path.is_dir():
        yield Finding("app directory", Level.NOTE, f"{path} is not there yet", "tollgate serve makes it")
        return
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("app directory", Level.FAIL, f"{path} cannot be written", "give it to the user who runs the gateway")
    elif os.name == "posix" and path.stat().st_mode & 0o077:
        yield Finding("app directory", Level.WARN, f"other users of this machine can look into {path}", f"chmod 700 {path}")
    else:
        yield Finding("app directory", Level.OK, str(path))


def check_ports(patient: Patient) -> Iterator[Finding]:
    """A gateway that answers, or ports that are free for one."""
    patient.running = find_running(patient.app_dir)
    if patient.running is not None:
        where = f"gateway {patient.running.gateway}, dashboard {patient.running.console}"
        yield Finding("ports", Level.OK, f"running as process {patient.running.pid}: {where}")
        yield from _check_gateway_port(patient.running)
        return
    taken = [(port, what, option) for port, what, option in DEFAULT_PORTS if not _is_free(port)]
    for port, what, option in taken:
        advice = f"tollgate serve {option} N chooses another"
        yield Finding("ports", Level.WARN, f"port {port}, where the {what} listens by default, is in use", advice)
    if not taken:
        yield Finding("ports", Level.OK, "no gateway runs; its default ports 8080, 8081 and 8082 are free")


def _check_gateway_port(running: RunningGateway) -> Iterator[Finding]:
    """The port that callers use answers, and hands out the CA that clients here are told to trust."""
    gateway = ConsoleClient(running.gateway, None, running.app_dir, timeout_seconds=_PORT_SECONDS)
    try:
        status, _ = gateway.exchange("GET", "/health", None)
        _, certificate = gateway.exchange("GET", "/ca.pem", None)
    except (OSError, http.client.HTTPException) as fault:
        advice = "look at the gateway's output, and start it again"
        yield Finding("ports", Level.FAIL, f"{running.gateway} does not answer: {fault or type(fault).__name__}", advice)
        return
    if status != http.client.OK:
        yield Finding(
            "ports", Level.FAIL, f"{running.gateway} says it is not well (status {status} at /health)", "look at its output"
        )
    if certificate.strip() != ca_certificate_path(running.app_dir / "ca").read_bytes().strip():
        yield Finding("CA", Level.FAIL, f"{running.gateway} uses another CA than {running.app_dir / 'ca'} holds", "start it again")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def check_ca(patient: Patient) -> Iterator[Finding]:
    """The CA is there, private, and valid for a while; the bundle for clients holds it."""
    directory = patient.app_dir / "ca"
    if not ca_key_path(directory).exists():
        yield Finding("CA", Level.NOTE, "no certificate authority yet", "tollgate serve makes it")
        return
    if os.name == "posix" and ca_key_path(directory).stat().st_mode & 0o077:
        advice = f"chmod 600 {ca_key_path(directory)}, and make a new CA if somebody may have read it"
        yield Finding("CA", Level.FAIL, "other users can read the CA's private key", advice)
    days = (ca_expiry(directory) - datetime.now(UTC)).days
    if days < _SOON_DAYS:
        level, text = (Level.FAIL, "has expired") if days < 0 else (Level.WARN, f"expires in {days} days")
        yield Finding("CA", level, f"the CA {text}", f"stop the gateway, remove {directory}, start it again, trust the new CA")
    else:
        yield Finding("CA", Level.OK, f"{ca_certificate_path(directory)}, valid for {days} days")
    trust_files(directory, {})


def check_configuration(patient: Patient) -> Iterator[Finding]:
    """The file can be read; what of it has no effect."""
    path = config_file(patient.app_dir, patient.config)
    there = path.is_file()
    patient.settings = settings_of(patient.app_dir, patient.config)
    for warning in patient.settings.warnings:
        yield Finding("configuration", Level.WARN, warning, "take it out of the file")
    if not there:
        yield Finding("configuration", Level.OK, f"no {path}: defaults, everything through commands and the API")
    else:
        yield Finding("configuration", Level.OK, f"{path} is valid")
        yield from config_mode(path, patient.settings)
    if patient.settings.file_only:
        text = "config_store.enabled is false: the file alone says who may spend what, dashboard and commands cannot change it"
        yield Finding("configuration", Level.OK, text)
    if patient.settings.encryption_key is not None:
        yield Finding("configuration", Level.OK, "encryption_key is set: provider keys are encrypted, virtual keys kept as hashes")
    elif not patient.settings.file_only:
        advice = "set encryption_key in config.json, best as env.NAME or file:PATH; the next start encrypts what is there"
        yield Finding("configuration", Level.NOTE, "no encryption_key: keys can be read in the store", advice)


def check_stores(patient: Patient) -> Iterator[Finding]:
    """The databases open and hold together."""
    if patient.settings is None:
        return
    place, clock = config_place_of(patient.app_dir, patient.settings), SystemClock()
    what = "ledger (config_store.enabled is false)" if patient.settings.file_only else "configuration and ledger"
    if config_is_missing(patient.app_dir, patient.settings):
        yield Finding("stores", Level.NOTE, f"{what}: {place} is not there yet", "tollgate serve makes it")
        return
    database = open_config_database(patient.app_dir, patient.settings, clock, read_only=True)
    patient.opened.append(database)
    if is_empty(database):
        yield Finding("stores", Level.NOTE, f"{what}: {place} is empty", "tollgate serve makes its tables")
        return
    database.migrate()
    if (damage := damage_of(database)) is not None:
        yield Finding("stores", Level.FAIL, f"{what}: {place} is damaged: {damage[0]}", damage[1])
        return
    yield Finding("stores", Level.OK, f"{what}: {place} holds together ({engine_of(database, synced=True)})")
    patient.store = store_on(database, patient.settings, clock, Ids(clock))
    patient.snapshot = load_snapshot(patient.store, patient.environ)
    with patient.store.reading() as (connection, ledger):
        patient.governance = load_governance(connection, now_ms=clock.now_ms(), ledger=ledger)


def check_logs(patient: Patient) -> Iterator[Finding]:
    """The log store opens. Without it calls are served and charged all the same."""
    settings = patient.settings
    if settings is None:
        return
    place = place_of(settings.logs_store, patient.app_dir, LOGS_FILE)
    path = sqlite_path(settings.logs_store, patient.app_dir, LOGS_FILE)
    if path is not None and not path.exists():
        yield Finding("stores", Level.NOTE, f"logs: {place} is not there yet", "tollgate serve makes it")
        return
    logs = logs_as_found(patient.app_dir, settings, clock=SystemClock(), read_only=True)
    patient.opened.append(logs)
    if is_empty(logs):
        yield Finding("stores", Level.NOTE, f"logs: {place} is empty", "tollgate serve makes its tables")
        return
    logs.migrate()
    patient.logs = logs
    if (damage := damage_of(patient.logs)) is not None:
        yield Finding("stores", Level.FAIL, f"logs: {place} is damaged: {damage[0]}", "move it away and start again")
        return
    yield Finding("stores", Level.OK, f"logs: {place} holds together ({engine_of(patient.logs, synced=False)})")


def check_ignored(patient: Patient) -> Iterator[Finding]:
    """Entries of the file that the store, which has data, goes before."""
    if patient.settings is not None and patient.store is not None and not patient.settings.file_only:
        yield from ignored_entries(patient.store, patient.settings)


def check_governance(patient: Patient) -> Iterator[Finding]:
    """What stands in the governance and can never have an effect."""
    if patient.governance is None or patient.store is None:
        return
    known = frozenset({*patient.store.builtin, *(provider.name for provider in patient.governance.providers)})
    yield from ended_keys(patient.governance, SystemClock().now_ms())
    yield from idle_caps(patient.governance, known)
    yield from idle_rules(patient.governance, known)


def check_providers(patient: Patient) -> Iterator[Finding]:
    """Which providers have keys in the gateway, and which keys cannot be used."""
    if patient.snapshot is None or patient.store is None:
        return
    for sentence in unusable_keys(patient.store, patient.environ):
        advice = "calls that need this key are refused, unless it is there where the gateway runs"
        yield Finding("providers", Level.WARN, sentence, advice)
    for sentence in exposed_files(patient.settings or Settings(), patient.store, patient.environ):
        yield Finding("providers", Level.WARN, sentence)
    with_keys = [provider for provider in patient.snapshot.providers.values() if provider.keys]
    for provider in with_keys:
        where = f" at {provider.base_url}" if provider.base_url else ""
        yield Finding("providers", Level.OK, f"{provider.name}: {len(provider.keys)} key(s) in the gateway{where}")
    if not with_keys:
        yield Finding("providers", Level.NOTE, "no provider has a key in the gateway: callers bring their own")


def check_budgets(patient: Patient) -> Iterator[Finding]:
    """Virtual keys that nothing stops."""
    if patient.snapshot is None:
        return
    keys = [key for key in patient.snapshot.virtual_keys.values() if key.is_active]
    uncapped = [key.name for key in keys if not _has_hard_budget(key, patient.snapshot)]
    if not keys:
        yield Finding("budgets", Level.NOTE, "no active virtual key", "tollgate keys create NAME --budget 50usd/1d")
    elif uncapped:
        advice = f"tollgate budgets create NAME --limit 50usd/1d --key {uncapped[0]}"
        yield Finding("budgets", Level.WARN, f"no hard budget binds every call of: {few(uncapped)}", advice)
    else:
        yield Finding("budgets", Level.OK, f"a hard budget binds each of {len(keys)} active virtual key(s)")


def _has_hard_budget(key: VirtualKey, snapshot: Snapshot) -> bool:
    everywhere = [*key.caps, *key.team_caps, *key.customer_caps, *key.model_caps.of_every_call, *snapshot.model_caps.of_every_call]
    if any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in everywhere):
        return True
    configs = key.provider_configs
    return bool(configs) and all(
        any(cap.unit is Unit.USD and cap.enforcement is Enforcement.HARD for cap in config.caps) for config in configs
    )


def check_prices(patient: Patient) -> Iterator[Finding]:
    """Models that somebody may call or has called, and that have no price."""
    if patient.settings is None or patient.governance is None:
        return
    from store.prices.book import PriceBook
    from store.prices.overrides import load_overrides

    file = patient.settings.gateway.prices.file
    book = PriceBook.load(load_overrides(patient.app_dir / file) if file else None)
    now_ms = SystemClock().now_ms()
    overrides = patient.governance.pricing_overrides
    named = {
        (provider, model) for provider, model in named_models(patient.governance)
        if ANY not in model and not has_own_price(overrides, model)
    }  # fmt: skip
    unknown = sorted(f"{provider}/{model}" for provider, model in named if book.price(provider, model, now_ms) is None)
    unknown += [f"{model} ({count} calls in {_UNPRICED_DAYS} days)" for model, count in _unpriced_calls(patient, now_ms)]
    if unknown:
        advice = "give them prices with a pricing override or in gateway.prices.file; until then a hard budget refuses them"
        yield Finding("prices", Level.WARN, f"no price is known for {', '.join(unknown)}", advice)
    else:
        yield Finding("prices", Level.OK, f"every model that is named or was called has a price ({book.source})")


def _unpriced_calls(patient: Patient, now_ms: int) -> Iterator[tuple[str, int]]:
    from store.logs.queries import LogReader

    if patient.logs is None:
        return
    for model, sums in LogReader(patient.logs).totals("model", start_ms=now_ms - _UNPRICED_DAYS * _DAY_MS).items():
        if sums.unpriced:
            yield model, sums.unpriced


def check_enforcement(patient: Patient) -> Iterator[Finding]:
    """Whether the caps can be walked round."""
    if patient.snapshot is None or patient.settings is None:
        return
    circumstances = Circumstances(
        without_keys=_providers_without_keys(patient.snapshot),
        own_keys=own_provider_keys(patient.environ),
        direct_keys_allowed=bool(patient.settings.client.allow_direct_keys),
        reachable=reachable_directly() if patient.probe else None,
    )
    judged = verdict(circumstances)
    level = Level.OK if judged.enforced else Level.WARN
    yield Finding("caps", level, judged.text, judged.advice)


def _providers_without_keys(snapshot: Snapshot) -> tuple[str, ...]:
    """Providers that an active virtual key may call and whose key only the caller can have."""
    wanted: set[str] = set()
    for key in snapshot.virtual_keys.values():
        for config in key.provider_configs if key.is_active else ():
            if config.provider != ANY:
                wanted.add(config.provider)
            else:
                configured = {name for name, provider in snapshot.providers.items() if provider.keys}
                wanted |= configured if configured and config.key_ids else set(BUILTIN)
    have = {name for name, provider in snapshot.providers.items() if provider.keys}
    return tuple(sorted(wanted - have))


_CHECKS: tuple[tuple[str, Check], ...] = (
    ("app directory", check_directory),
    ("ports", check_ports),
    ("CA", check_ca),
    ("configuration", check_configuration),
    ("stores", check_stores),
    ("stores", check_logs),
    ("configuration", check_ignored),
    ("providers", check_providers),
    ("governance", check_governance),
    ("budgets", check_budgets),
    ("prices", check_prices),
    ("caps", check_enforcement),
)

"""config.json as pydantic models: the sections and field names of Bifrost's file plus our own `gateway` and `console`.

`python -m store.settings` writes `store/config.schema.json`, which editors use for completion.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from store.config_store.fields import Bool, Duration, Id, Int, Name, Names, Usd, check_base_url, loads_exact
from store.config_store.file_checks import check_references
from store.config_store.json_place import fault_place, line_and_column
from store.config_store.problems import join_problems, problems
from store.config_store.secret_text import NoSecret, Secret, SecretText
from store.config_store.specs import (
    FROM_FILE,
    BudgetSpec,
    CustomerSpec,
    Limited,
    ProviderSpec,
    RateLimitSpec,
    Spec,
    TeamSpec,
    VirtualKeySpec,
)
from store.config_store.specs_models import FileModelConfig
from store.config_store.specs_prices import PricingOverrideSpec
from store.config_store.specs_routing import RoutingRuleSpec
from store.config_store.unimplemented import unimplemented_in
from store.errors import SettingsError
from store.store_settings import ConfigStoreSettings, LedgerStoreSettings, LogsStoreSettings

LARGEST_BYTES = 32 * 2**20
"""Of a configuration file. Ten thousand virtual keys with two budgets and three provider configs each take 6 MiB."""
SCHEMA_PATH = Path(__file__).with_name("config.schema.json")

Port = Annotated[Int, Field(ge=1, le=65535)]
Positive = Annotated[Int, Field(ge=1)]
NotNegative = Annotated[Int, Field(ge=0)]


class Forward(Spec):
    """The forward proxy's rules. Null: decided by the address it listens on (see `resolved`)."""

    unmatched: Literal["tunnel", "deny"] | None = None
    """What becomes of a CONNECT to a host that is no provider."""
    allow: Names = ()
    """Private hosts or networks (CIDR) that may be reached although the gateway listens beyond loopback."""
    require_auth: Bool | None = None

    def resolved(self, *, on_loopback: bool) -> tuple[Literal["tunnel", "deny"], bool]:
        """(unmatched, require_auth): open on loopback, closed elsewhere, unless the file says otherwise."""
        unmatched: Literal["tunnel", "deny"] = self.unmatched or ("tunnel" if on_loopback else "deny")
        return unmatched, (not on_loopback) if self.require_auth is None else self.require_auth


class Listener(Spec):
    """A port of its own for a tool that cannot send a virtual key."""

    port: Port
    virtual_key: Name


class Inspect(Spec):
    """How much the inspector keeps."""

    history: Duration | None = "24h"
    flows: Positive = 2000
    megabytes: Positive = 256


class Limits(Spec):
    """Bounds on what a client or a provider can make the gateway keep or wait for."""

    max_body_mb: Positive = 32
    max_header_kb: Positive = 64
    max_connections: Positive = 10000
    header_timeout_seconds: Positive = 10
    connect_timeout_seconds: Positive = 10
    first_byte_timeout_seconds: Positive = 600
    idle_stream_timeout_seconds: Positive = 300


class Prices(Spec):
    """A file of prices that go before the built-in ones."""

    file: str | None = None


class FlatPrice(Spec):
    """The price of models that the price book does not know."""

    input_per_million_usd: Usd
    output_per_million_usd: Usd


def is_proxy_address(text: str) -> bool:
    """Whether a text names a proxy: scheme, host, perhaps port, user and password."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


class Gateway(Spec):
    """What is ours alone."""

    forward: Forward = Forward()
    listeners: tuple[Listener, ...] = ()
    default_virtual_key: Name | None = None
    public_url: str | None = None
    upstream_proxy: str | None = None
    unpriced: Literal["block", "allow"] | FlatPrice = "block"
    unmetered: Literal["block", "allow"] = "block"
    trim_output: Bool = True
    min_output_tokens: Positive = 256
    hold_wait_seconds: NotNegative = 10
    ledger_retention_days: Positive | None = 400
    """How long the ledger keeps the rows of calls that nothing needs any more; null: for ever."""
    audit_retention_days: Positive | None = 400
    """How long the audit log keeps its rows; null: for ever."""
    inspect: Inspect = Inspect()
    limits: Limits = Limits()
    prices: Prices = Prices()

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        try:
            check_base_url(self.public_url or None)
        except ValueError as error:
            raise ValueError(f"public_url: {error}") from None
        if self.upstream_proxy and not is_proxy_address(self.upstream_proxy):
            raise ValueError("upstream_proxy: is not an address; write it like http://proxy.example.com:3128")
        ports = [listener.port for listener in self.listeners]
        if len(set(ports)) != len(ports):
            raise ValueError("listeners: two of them have the same port")
        return self


class Console(Spec):
    """The dashboard and the management API."""

    public_url: str | None = None
    """The address people type when a proxy stands in front; its host passes the Host and Origin checks."""
    allowed_hosts: Names = ()
    """Further host names under which the console may be opened."""

    @model_validator(mode="after")
    def _address(self) -> Self:
        check_base_url(self.public_url or None)
        return self


class Client(Spec):
    """How clients are treated."""

    unimplemented = frozenset(
        {"drop_excess_requests", "initial_pool_size", "prometheus_labels", "allowed_headers",
         "retain_content_in_object_storage", "allow_per_request_content_storage_override", "allow_per_request_raw_override",
         "disable_db_pings_in_health", "dump_errors_in_console_logs", "enforce_governance_header", "enforce_scim_auth",
         "dual_credential_conflict_behavior", "max_request_body_size_mb", "compat", "header_filter_config",
         "async_job_result_ttl", "required_headers", "logging_headers", "whitelisted_routes",
         "hide_deleted_virtual_keys_in_filters", "webhook_config", "oauth2_server_config",
         "mcp_agent_depth", "mcp_tool_execution_timeout", "mcp_code_mode_binding_level", "mcp_tool_sync_interval"}
    )  # fmt: skip

    allowed_origins: Names = ()
    enable_logging: Bool = True
    disable_content_logging: Bool = False
    log_retention_days: Positive = 365
    enforce_auth_on_inference: Bool = True
    allow_direct_keys: Bool = False
    routing_chain_max_depth: Positive = 10
    """How many routing rules one call may pass through, one after another."""


class AuthConfig(Spec):
    """User and password of the console; without this section the token in `admin.token` is the way in."""

    unimplemented = frozenset({"disable_auth_on_inference"})

    admin_username: Secret | None = None
    admin_password: Secret | None = None
    is_enabled: Bool = True

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.is_enabled and (self.admin_username is None) != (self.admin_password is None):
            raise ValueError("admin_username and admin_password go together; give both or neither")
        return self


class FileBudget(BudgetSpec):
    """A row of `governance.budgets` that names its owner, or is named by it through `budget_id`."""

    virtual_key_id: Id | None = None
    provider_config_id: Id | None = None
    team_id: Id | None = None
    customer_id: Id | None = None
    model_config_id: Id | None = None
    provider_name: Name | None = None

    def owners(self) -> dict[str, str]:
        """The owner fields that are set."""
        names = ("virtual_key_id", "provider_config_id", "team_id", "customer_id", "model_config_id", "provider_name")
        return {name: value for name in names if (value := getattr(self, name))}

    @model_validator(mode="after")
    def _at_most_one_owner(self) -> Self:
        if len(self.owners()) > 1:
            raise ValueError(f"has several owners ({', '.join(self.owners())}); a budget belongs to one")
        return self


class FileRateLimit(RateLimitSpec):
    """A row of `governance.rate_limits`, named by its owner through `rate_limit_id`."""

    id: Id


class GovernanceProvider(Limited):
    """Deployment-wide caps of a provider."""

    read_only = frozenset({"config_hash"})

    name: Name
    budget_id: Id | None = None
    rate_limit_id: Id | None = None


class Governance(Spec):
    """Who may spend how much."""

    unimplemented = frozenset(
        {"complexity_analyzer_config", "business_units", "roles"}
    )  # fmt: skip

    virtual_keys: tuple[VirtualKeySpec, ...] = ()
    teams: tuple[TeamSpec, ...] = ()
    customers: tuple[CustomerSpec, ...] = ()
    budgets: tuple[FileBudget, ...] = ()
    rate_limits: tuple[FileRateLimit, ...] = ()
    model_configs: tuple[FileModelConfig, ...] = ()
    providers: tuple[GovernanceProvider, ...] = ()
    routing_rules: tuple[RoutingRuleSpec, ...] = ()
    pricing_overrides: tuple[PricingOverrideSpec, ...] = ()
    auth_config: AuthConfig | None = None


class Settings(Spec):
    """All of config.json."""

    unimplemented = frozenset(
        {"server", "env_label", "setup_token", "framework", "alerting", "webhooks", "mcp", "vector_store",
         "plugins", "websocket", "guardrails_config", "audit_logs", "cluster_config", "load_balancer_config",
         "large_payload_optimization", "scim_config", "access_profiles", "feature_flags", "circuit_breaker_config"}
    )  # fmt: skip

    schema_: str | None = Field(default=None, alias="$schema")
    version: Literal[1, 2] = 2
    source_of_truth: Literal["split", "config.json"] = "split"
    """`config.json`: at every start the file's sections go before the store. `split`: the store, once it has data."""
    encryption_key: Secret | None = None
    auth_config: AuthConfig | None = None
    client: Client = Client()
    config_store: ConfigStoreSettings = ConfigStoreSettings()
    logs_store: LogsStoreSettings = LogsStoreSettings()
    ledger_store: LedgerStoreSettings = LedgerStoreSettings()
    providers: dict[str, ProviderSpec] = Field(default_factory=dict)
    governance: Governance = Governance()
    gateway: Gateway = Gateway()
    console: Console = Console()

    _environ: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each section or field that is accepted but not implemented."""
        return self._warnings

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment that secrets are looked up in."""
        return self._environ

    @property
    def file_only(self) -> bool:
        """True when the file alone says who may spend what (`config_store.enabled` is false)."""
        return not self.config_store.enabled

    @property
    def auth(self) -> AuthConfig | None:
        """`auth_config` of the top level, else the one inside `governance`."""
        return self.auth_config or self.governance.auth_config

    def secret(self, secret: SecretText | None, path: str) -> str | None:
        """The secret in clear, as it is now; None for none. Raises SettingsError when it cannot be had."""
        if secret is None:
            return None
        try:
            return secret.look_up(self._environ)
        except NoSecret as error:
            raise SettingsError(f"{path}: {error}") from None


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a config.json, or the defaults without one.

    Raises SettingsError, one line: file, line and column for broken JSON; the path in the document for wrong values.
    """
    if path is None:
        return settings_from({}, environ, source="config.json")
    try:
        if path.is_file() and path.stat().st_size > LARGEST_BYTES:
            raise SettingsError(f"{path}: has more than {LARGEST_BYTES // 2**20} MiB; that is no configuration file")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file; name another one with --config, or leave it out") from None
    except UnicodeDecodeError as error:
        line, column = line_and_column(bytes(error.object), error.start)
        raise SettingsError(f"{path}: line {line}, column {column}: is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        document = loads_exact(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}: line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        place = fault_place(text)
        where = f"line {place[0]}, column {place[1]}: " if place else ""
        raise SettingsError(f"{path}: {where}{error}") from None
    return settings_from(document, environ, source=str(path))


def settings_from(document: Any, environ: Mapping[str, str], *, source: str) -> Settings:
    """Settings of a parsed document; `source` stands before each error. Raises SettingsError."""
    if not isinstance(document, dict):
        raise SettingsError(f"{source}: must be a JSON object with sections such as providers and governance")
    _refuse_other_stores(document, source)
    try:
        settings = Settings.model_validate(document, context=FROM_FILE)
    except ValidationError as error:
        raise SettingsError(f"{source}: {join_problems(problems(Settings, error))}") from None
    settings._environ = dict(environ)
    settings._warnings = tuple(_warnings(document, settings))
    try:
        check_references(settings)
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from None
    return settings


def _refuse_other_stores(document: Mapping[str, Any], source: str) -> None:
    section = document.get("logs_store")
    if isinstance(section, Mapping) and section.get("type") == "clickhouse":
        raise SettingsError(f'{source}: logs_store.type: "clickhouse" is not supported; use "sqlite" or "postgres"')


def _warnings(document: Mapping[str, Any], settings: Settings) -> Iterator[str]:
    for path in unimplemented_in(Settings, document):
        yield f"{path} is not implemented and has no effect"
    if not settings.file_only and settings.ledger_store != LedgerStoreSettings():
        yield "ledger_store has no effect while config_store.enabled is true: the ledger is kept in the config store"


def schema_text() -> str:
    """The JSON Schema of config.json, as it stands in `store/config.schema.json`."""
    schema = Settings.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Tollgate config.json"
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"wrote {SCHEMA_PATH.name}\n")

"""What people may ask for: the shapes of budgets, limits, keys, teams and providers, the same in config.json and in the API.

Money stays a Decimal in USD here, exactly as written; it becomes nano-dollars where a cap is made of it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    model_validator,
)

from store.clock import ms_from_iso
from store.config_store.fields import (
    BaseUrl,
    Bool,
    Count,
    Duration,
    EnforcementName,
    Id,
    Name,
    Names,
    Reason,
    Text,
    Time,
    Usd,
    Weight,
    check_models,
)
from store.config_store.problems import known_keys
from store.config_store.secret_text import Secret
from store.config_store.snapshot import ANY
from store.config_store.unimplemented import is_empty
from store.ledger.types import Unit
from store.money import nanos_from_usd

FROM_FILE = {"file": True}
"""Validation context of config.json: what we do not implement is left out there (with a warning), refused elsewhere."""


def _describe_unimplemented(schema: dict[str, Any], model: type[BaseModel]) -> None:
    known = {*known_keys(model)}
    for names, words in (("unimplemented", "Not implemented: refused, unless it is empty."), ("read_only", "Taken back unread.")):
        for name in sorted(getattr(model, names, frozenset()) - known):
            schema.setdefault("properties", {})[name] = {"description": words}


class Spec(BaseModel):
    """Base of every shape: unknown keys are errors; known keys that nothing here implements are named, never swallowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_extra=_describe_unimplemented)
    unimplemented: ClassVar[frozenset[str]] = frozenset()
    read_only: ClassVar[frozenset[str]] = frozenset()
    """What answers carry and requests may send back unread, so that an object that was read can be changed and sent."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unimplemented(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        left_out = (cls.unimplemented | cls.read_only) - {*known_keys(cls)}
        if not left_out.intersection(data):
            return data
        from_file = bool(info.context and info.context.get("file"))
        asked = [key for key in data if key in cls.unimplemented and not is_empty(data[key])]
        if asked and not from_file:
            raise ValueError(f"{asked[0]} is not implemented; leave it out")
        return {key: value for key, value in data.items() if key not in left_out}

    def given(self, name: str) -> bool:
        """True when the document named this field, whatever its value."""
        return name in self.model_fields_set


class ResetConfig(Spec):
    """Where calendar quarters begin."""

    quarter_start_month: Annotated[int, Strict(), Field(ge=1, le=12)] = 1


class BudgetSpec(Spec):
    """A cap in money. Without `reset_duration` it is prepaid: it never resets, top-ups fill it."""

    unimplemented = frozenset(
        {"override_amount", "override_mode", "override_cycles_remaining", "override_cycles_total", "override_anchor_reset"}
    )  # fmt: skip
    read_only = frozenset(
        {"current_usage", "last_reset", "held", "carried", "effective_max_limit", "remaining", "resets_at", "override",
         "scope", "scope_id", "scope_name", "virtual_key_id", "provider_config_id", "team_id", "customer_id", "model_config_id",
         "config_hash", "created_at", "updated_at"}
    )  # fmt: skip

    id: Id | None = None
    name: Name | None = None
    max_limit: Usd
    reset_duration: Duration | None = None
    reset_config: ResetConfig | None = None
    calendar_aligned: Bool | None = None
    timezone: Name = "UTC"
    enforcement: EnforcementName = "hard"
    strict: Bool = False
    carry_over: Bool = False

    @property
    def limit_nanos(self) -> int:
        """The limit in nano-dollars, exact."""
        return nanos_from_usd(self.max_limit)

    @property
    def quarter_start_month(self) -> int:
        """1 to 12."""
        return self.reset_config.quarter_start_month if self.reset_config else 1


class RateLimitSpec(Spec):
    """Limits in tokens, requests and parallel calls; all nulls remove them."""

    read_only = frozenset(
        {"token_current_usage", "token_held", "token_last_reset", "token_resets_at", "request_current_usage", "request_held",
         "request_last_reset", "request_resets_at", "concurrent_current", "config_hash", "created_at", "updated_at"}
    )  # fmt: skip

    id: Id | None = None
    token_max_limit: Count | None = None
    token_reset_duration: Duration | None = None
    request_max_limit: Count | None = None
    request_reset_duration: Duration | None = None
    concurrent_max_limit: Count | None = None
    calendar_aligned: Bool | None = None
    timezone: Name = "UTC"
    enforcement: EnforcementName = "hard"

    @model_validator(mode="after")
    def _limits_have_windows(self) -> Self:
        for unit, limit, duration in self.windows():
            if limit is not None and duration is None:
                raise ValueError(f"{unit.value.rstrip('s')}_max_limit needs {unit.value.rstrip('s')}_reset_duration, such as 1h")
        return self

    def windows(self) -> tuple[tuple[Unit, int | None, str | None], ...]:
        """(unit, limit, window) for tokens and requests."""
        return (
            (Unit.TOKENS, self.token_max_limit, self.token_reset_duration),
            (Unit.REQUESTS, self.request_max_limit, self.request_reset_duration),
        )


def check_budgets(budgets: tuple[BudgetSpec, ...]) -> tuple[BudgetSpec, ...]:
    """One budget per window inside one owner, as a second one would only hide the first. Raises ValueError."""
    seen: set[tuple[str | None, bool | None, str]] = set()
    for budget in budgets:
        window = (budget.reset_duration, budget.calendar_aligned, budget.timezone)
        if window in seen:
            raise ValueError(f"two budgets reset every {budget.reset_duration or 'never'}; keep one of them")
        seen.add(window)
    return budgets


Budgets = tuple[BudgetSpec, ...]


class Limited(Spec):
    """Whatever can carry caps: several budgets, a rate limit, and how their windows are cut."""

    budgets: Budgets = ()
    rate_limit: RateLimitSpec | None = None
    calendar_aligned: Bool = False

    @model_validator(mode="after")
    def _one_budget_per_window(self) -> Self:
        check_budgets(self.budgets)
        return self


class ModelBudgetSpec(Limited):
    """Caps on one model (or `*` pattern) inside a provider config: a model config of that virtual key and provider."""

    read_only = frozenset({"virtual_key_id", "provider", "rate_limit_id", "config_hash", "created_at", "updated_at"})

    id: Id | None = None
    model_name: Name


class ProviderConfigSpec(Limited):
    """What a virtual key may do at one provider (`*`: at any). An absent list allows everything, an empty one nothing."""

    read_only = frozenset({"virtual_key_id", "allow_all_keys", "keys", "config_hash"})

    id: Id | None = None
    provider: Name
    weight: Weight | None = None
    allowed_models: Names = (ANY,)
    blacklisted_models: Names = ()
    key_ids: Names = (ANY,)
    rate_limit_id: Id | None = None
    model_budgets: tuple[ModelBudgetSpec, ...] = ()

    @model_validator(mode="after")
    def _lists_are_clear(self) -> Self:
        for name in ("allowed_models", "blacklisted_models", "key_ids"):
            try:
                check_models(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return self


_VIRTUAL_KEY_UNIMPLEMENTED = frozenset({"mcp_configs", "access_profile_id", "created_by_user_id", "is_access_profile_managed"})


class VirtualKeySpec(Limited):
    """A virtual key to be made."""

    unimplemented = _VIRTUAL_KEY_UNIMPLEMENTED

    id: Id | None = None
    name: Name
    description: Text = ""
    value: Secret | None = None
    is_active: Bool = True
    expires_at: Time | None = None
    team_id: Id | None = None
    customer_id: Id | None = None
    rate_limit_id: Id | None = None
    provider_configs: tuple[ProviderConfigSpec, ...] = ()

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if self.team_id and self.customer_id:
            raise ValueError("a virtual key belongs to a team or to a customer, not to both: leave out team_id or customer_id")
        return self

    @property
    def expires_at_ms(self) -> int | None:
        """Milliseconds since 1970, or None."""
        return ms_from_iso(self.expires_at) if self.expires_at else None


class VirtualKeyPatch(Spec):
    """Changes to a virtual key: absent fields stay; a list that is present is the whole desired set."""

    unimplemented = _VIRTUAL_KEY_UNIMPLEMENTED
    read_only = frozenset(
        {"id", "value_hint", "previous_value_until", "team", "customer", "rate_limit_id", "config_hash", "created_at", "updated_at"}
    )

    name: Name | None = None
    value: Secret | None = None
    """Only what it is already: a new value comes from rotating the key."""
    description: Text | None = None
    is_active: Bool | None = None
    expires_at: Time | None = None
    team_id: Id | Literal[""] | None = None
    customer_id: Id | Literal[""] | None = None
    provider_configs: tuple[ProviderConfigSpec, ...] | None = None
    budgets: Budgets | None = None
    rate_limit: RateLimitSpec | None = None
    calendar_aligned: Bool | None = None
    reset_budget_usage: Bool = False

    @model_validator(mode="after")
    def _clear(self) -> Self:
        check_budgets(self.budgets or ())
        if self.team_id and self.customer_id:
            raise ValueError("a virtual key belongs to a team or to a customer, not to both: leave out team_id or customer_id")
        return self


class TeamSpec(Limited):
    """A team to be made; it may belong to a customer."""

    unimplemented = frozenset({"source_id", "business_unit_id", "profile", "config", "claims"})
    read_only = frozenset({"config_hash"})

    id: Id | None = None
    name: Name
    customer_id: Id | None = None
    budget_id: Id | None = None
    rate_limit_id: Id | None = None


def _take_single_budget(data: Any) -> Any:
    """`budget` of older clients as `budgets` with one in it. Raises ValueError when both are given."""
    if not isinstance(data, Mapping) or "budget" not in data:
        return data
    rest = {key: value for key, value in data.items() if key != "budget"}
    if data["budget"] is None:
        return rest
    if rest.get("budgets") is not None:
        raise ValueError("budget and budgets say the same thing; leave budget out")
    return {**rest, "budgets": [data["budget"]]}


def _describe_single_budget(schema: dict[str, Any], model: type[BaseModel]) -> None:
    _describe_unimplemented(schema, model)
    budgets = schema["properties"]["budgets"]
    several = budgets if "items" in budgets else next(option for option in budgets["anyOf"] if "items" in option)
    schema["properties"]["budget"] = {
        "anyOf": [several["items"], {"type": "null"}],
        "deprecated": True,
        "description": "The same as budgets with this one in it.",
    }


class CustomerSpec(Limited):
    """A customer to be made."""

    model_config = ConfigDict(json_schema_extra=_describe_single_budget)
    read_only = frozenset({"config_hash"})

    id: Id | None = None
    name: Name
    budget_id: Id | None = None
    rate_limit_id: Id | None = None

    _single_budget = model_validator(mode="before")(_take_single_budget)


class GroupPatch(Spec):
    """Changes to a team, or to whatever has caps and a name."""

    unimplemented = TeamSpec.unimplemented
    read_only = frozenset(
        {"id", "rate_limit_id", "customer", "teams", "virtual_keys", "virtual_key_count", "config_hash", "created_at", "updated_at"}
    )

    name: Name | None = None
    customer_id: Id | Literal[""] | None = None
    budgets: Budgets | None = None
    rate_limit: RateLimitSpec | None = None
    calendar_aligned: Bool | None = None
    reset_budget_usage: Bool = False

    @model_validator(mode="after")
    def _clear(self) -> Self:
        check_budgets(self.budgets or ())
        return self


class CustomerPatch(GroupPatch):
    """Changes to a customer."""

    model_config = ConfigDict(json_schema_extra=_describe_single_budget)

    _single_budget = model_validator(mode="before")(_take_single_budget)


OwnerScope = Literal["provider_config", "virtual_key_model", "virtual_key", "team", "customer", "provider", "model"]


class BudgetRowSpec(BudgetSpec):
    """A budget that names whom it binds. `scope_id`: an id, or the name of a provider or model; names of keys work too."""

    scope: OwnerScope
    scope_id: Id


class RateLimitRowSpec(RateLimitSpec):
    """Limits that name whom they bind, as a budget does."""

    read_only = RateLimitSpec.read_only | {"scope_name"}

    scope: OwnerScope
    scope_id: Id


class BudgetPatch(Spec):
    """Changes to one budget; what was spent stays."""

    unimplemented = BudgetSpec.unimplemented
    read_only = BudgetSpec.read_only | {"id"}

    name: Name | None = None
    max_limit: Usd | None = None
    reset_duration: Duration | None = None
    reset_config: ResetConfig | None = None
    calendar_aligned: Bool | None = None
    timezone: Name | None = None
    enforcement: EnforcementName | None = None
    strict: Bool | None = None
    carry_over: Bool | None = None
    reason: Reason = ""


class ProviderKeySpec(Spec):
    """A provider's own credential. An absent `models` list allows every model, an empty one none."""

    unimplemented = frozenset(
        {"use_for_batch_api", "aliases", "azure_key_config", "vertex_key_config", "bedrock_key_config", "vllm_key_config",
         "ollama_key_config", "sgl_key_config"}
    )  # fmt: skip
    read_only = frozenset({"provider", "status", "status_reason", "config_hash", "created_at", "updated_at"})

    id: Id | None = None
    name: Name
    value: Secret | None = None
    models: Names = (ANY,)
    blacklisted_models: Names = ()
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _lists_are_clear(self) -> Self:
        try:
            check_models(self.models)
        except ValueError as error:
            raise ValueError(f"models {error}") from None
        return self


class NetworkConfig(Spec):
    """Where a provider is and what is added to each request."""

    unimplemented = frozenset(
        {"default_request_timeout_in_seconds", "max_retries", "retry_backoff_initial", "retry_backoff_max",
         "retry_backoff_initial_ms", "retry_backoff_max_ms", "insecure_skip_verify", "ca_cert_pem", "max_conns_per_host",
         "stream_idle_timeout_in_seconds", "enforce_http2", "beta_header_overrides"}
    )  # fmt: skip

    base_url: BaseUrl | None = None
    extra_headers: dict[str, str] = Field(default_factory=dict)


class CustomProviderConfig(Spec):
    """Which dialect a provider with a name of its own speaks."""

    unimplemented = frozenset({"is_key_less", "allowed_requests", "request_path_overrides"})

    base_provider_type: Name


class ProviderSpec(Spec):
    """A provider as config.json has it under `providers.<name>`."""

    unimplemented = frozenset(
        {"concurrency_and_buffer_size", "proxy_config", "send_back_raw_request", "send_back_raw_response",
         "store_raw_request_response", "openai_config"}
    )  # fmt: skip
    read_only = frozenset({"name", "configured", "built_in", "provider_status", "status", "description", "config_hash"})

    keys: tuple[ProviderKeySpec, ...] = ()
    network_config: NetworkConfig = Field(default_factory=NetworkConfig)
    custom_provider_config: CustomProviderConfig | None = None
    hosts: Names = ()

    @model_validator(mode="after")
    def _key_names_differ(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) != len(names):
            raise ValueError("two keys have the same name; give each its own")
        return self

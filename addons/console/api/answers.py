"""What the API answers, as types: `/api/openapi.json` is made of them, and a test compares them with real answers.

Money is a JSON number in USD, exact to nine places; times are RFC 3339 in UTC.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import Field, WithJsonSchema

Money = Annotated[Decimal, WithJsonSchema({"type": "number", "description": "USD, exact to nine decimal places."})]
MoneyText = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", description="USD as text, exact.")]
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
EnforcementWord = Literal["hard", "soft", "observe"]


class Done(TypedDict):
    """It is done."""

    message: str


class ResetConfigAnswer(TypedDict):
    """Where calendar quarters begin."""

    quarter_start_month: int


class RaiseAnswer(TypedDict):
    """A raise in force."""

    amount: Money
    since: Instant
    until: Instant
    reason: str


class BudgetAnswer(TypedDict):
    """A cap in money with its sums at this instant."""

    id: str
    name: str
    max_limit: Money
    reset_duration: str | None
    calendar_aligned: bool
    timezone: str
    reset_config: ResetConfigAnswer | None
    enforcement: EnforcementWord
    strict: bool
    carry_over: bool
    current_usage: Money
    held: Money
    carried: Money
    override: RaiseAnswer | None
    effective_max_limit: Money
    remaining: Money
    last_reset: Instant | None
    resets_at: Instant | None
    scope: str
    scope_id: str
    scope_name: str
    virtual_key_id: str | None
    provider_config_id: str | None
    team_id: str | None
    customer_id: str | None
    model_config_id: str | None
    created_at: Instant


class RateLimitAnswer(TypedDict):
    """Limits in tokens, requests and parallel calls with their sums."""

    id: str
    token_max_limit: int | None
    token_reset_duration: str | None
    token_current_usage: int
    token_held: int
    token_last_reset: Instant | None
    token_resets_at: Instant | None
    request_max_limit: int | None
    request_reset_duration: str | None
    request_current_usage: int
    request_held: int
    request_last_reset: Instant | None
    request_resets_at: Instant | None
    concurrent_max_limit: NotRequired[int]
    concurrent_current: NotRequired[int]
    enforcement: EnforcementWord


class OwnedRateLimit(RateLimitAnswer):
    """An owner's limits, and whose they are."""

    scope: str
    scope_id: str
    scope_name: str


class Caps(TypedDict):
    """What binds an owner."""

    budgets: list[BudgetAnswer]
    rate_limit: RateLimitAnswer | None


class Named(TypedDict):
    """Something by its id and name."""

    id: str
    name: str


class TeamBrief(Named):
    """The team of a key."""

    customer_id: str | None


class ModelBudgetAnswer(Caps):
    """What binds a key on one model at one provider."""

    id: str
    model_name: str
    provider: str | None
    calendar_aligned: bool


class ProviderConfigAnswer(Caps):
    """What a key may do at a provider."""

    id: str
    virtual_key_id: str
    provider: str
    weight: float | None
    allowed_models: list[str]
    blacklisted_models: list[str]
    key_ids: list[str]
    allow_all_keys: bool
    keys: list[Named]
    calendar_aligned: bool
    model_budgets: list[ModelBudgetAnswer]


class VirtualKeyAnswer(Caps):
    """A virtual key. `value` is the whole value while that can be read, else a hint."""

    id: str
    name: str
    description: str
    value: str
    value_hint: str
    previous_value_until: Instant | None
    is_active: bool
    expires_at: Instant | None
    provider_configs: list[ProviderConfigAnswer]
    team_id: str | None
    customer_id: str | None
    team: TeamBrief | None
    customer: Named | None
    calendar_aligned: bool
    created_at: Instant
    updated_at: Instant


class TeamAnswer(Caps):
    """A team with the keys that belong to it."""

    id: str
    name: str
    customer_id: str | None
    customer: Named | None
    virtual_keys: list[Named]
    virtual_key_count: int
    calendar_aligned: bool
    created_at: Instant
    updated_at: Instant


class CustomerAnswer(Caps):
    """A customer with its teams, and the keys that belong to it without a team."""

    id: str
    name: str
    teams: list[Named]
    virtual_keys: list[Named]
    virtual_key_count: int
    calendar_aligned: bool
    created_at: Instant
    updated_at: Instant


class Page(TypedDict):
    """What every list says beside its things."""

    count: int
    total_count: int
    limit: int
    offset: int


class VirtualKeyList(Page):
    """A page of keys, or all."""

    virtual_keys: list[VirtualKeyAnswer]


class VirtualKeyOne(TypedDict):
    """One key."""

    virtual_key: VirtualKeyAnswer


class VirtualKeyDone(Done):
    """The key as it is now."""

    virtual_key: VirtualKeyAnswer


class VirtualKeysRotated(Done):
    """The keys with their new values, and why others have none."""

    virtual_keys: list[VirtualKeyAnswer]
    errors: NotRequired[dict[str, str]]


class TeamList(Page):
    """A page of teams, or all."""

    teams: list[TeamAnswer]


class TeamOne(TypedDict):
    """One team."""

    team: TeamAnswer


class TeamDone(Done):
    """The team as it is now."""

    team: TeamAnswer


class CustomerList(Page):
    """A page of customers, or all."""

    customers: list[CustomerAnswer]


class CustomerOne(TypedDict):
    """One customer."""

    customer: CustomerAnswer


class CustomerDone(Done):
    """The customer as it is now."""

    customer: CustomerAnswer


class BudgetList(TypedDict):
    """Budgets, and how many there are in all."""

    budgets: list[BudgetAnswer]
    count: int
    total_count: int


class BudgetOne(TypedDict):
    """One budget."""

    budget: BudgetAnswer


class BudgetDone(Done):
    """The budget as it is now."""

    budget: BudgetAnswer


class BudgetOverridden(TypedDict):
    """The budget as it is now, and the limit in force."""

    budget: BudgetAnswer
    effective_max_limit: Money


class RateLimitList(TypedDict):
    """Every owner's limits."""

    rate_limits: list[OwnedRateLimit]
    count: int


class RateLimitDone(Done):
    """The owner's limits as they are now; null when none is left."""

    rate_limit: OwnedRateLimit | None


class UnconfirmedCall(TypedDict):
    """A call that waits for somebody's word. `cost` and `tokens` are what it was posted at."""

    call_id: str
    held_at: Instant | None
    posted_at: Instant
    cost: Money
    tokens: int
    note: str
    provider: str | None
    model: str | None
    virtual_key_id: str | None
    virtual_key_name: str | None
    team_id: str | None
    customer_id: str | None
    run_id: str | None
    caps: list[Named]


class UnconfirmedList(Page):
    """Unconfirmed calls, oldest first."""

    calls: list[UnconfirmedCall]


class ConfirmedCall(TypedDict):
    """A call after somebody's word: what it cost in the end, and what it was posted at before."""

    call_id: str
    cost: Money
    tokens: int
    posted: Money
    reason: str


class CallConfirmed(Done):
    """The call as it is booked now."""

    call: ConfirmedCall


class RunAnswer(TypedDict):
    """A run of `exec`: money as text. `calls` counts refused ones too."""

    id: str
    virtual_key_id: str
    virtual_key_name: str
    budget_usd: MoneyText | None
    cost_usd: MoneyText
    held_usd: MoneyText
    calls: int
    refused: int
    open_calls: int
    rate_limit: RateLimitAnswer | None
    created_at: Instant
    expires_at: Instant
    value: NotRequired[str]


class RunOne(TypedDict):
    """One run."""

    run: RunAnswer


class RunDone(Done):
    """The run as it is now; just made, with its credential."""

    run: RunAnswer


class ModelUsage(TypedDict):
    """What one model used of a budget."""

    model: str
    provider: str
    total_requests: int
    total_tokens: int
    total_cost: Money


class QuotaBudget(BudgetAnswer):
    """A budget with what each model used of it, where logs are kept."""

    per_model_usage: NotRequired[list[ModelUsage]]


class QuotaCaps(TypedDict):
    """What binds a key's holder."""

    budgets: list[QuotaBudget]
    rate_limit: RateLimitAnswer | None


class QuotaProvider(QuotaCaps):
    """At one provider."""

    provider: str


class QuotaModel(QuotaCaps):
    """On one model."""

    model_name: str
    provider: str | None


class QuotaAnswer(QuotaCaps):
    """What a key's holder may know."""

    virtual_key_name: str
    is_active: bool
    provider_configs: list[QuotaProvider]
    model_configs: list[QuotaModel]


class HealthAnswer(TypedDict):
    """All is well, part by part."""

    status: Literal["ok"]
    components: dict[str, str]


class LoginAnswer(Done):
    """Signed in; the token goes into `X-CSRF-Token` of every change."""

    csrf_token: str


class AuthState(TypedDict):
    """Whether signing in is needed, and whether it has happened."""

    is_auth_enabled: bool
    has_valid_token: bool
    auth_type: Literal["none", "password", "token"]
    csrf_token: NotRequired[str]


class ErrorText(TypedDict):
    """What is wrong and what to do."""

    message: str


class ExtraFields(TypedDict):
    """Bifrost's place for more."""

    routing_info: dict[str, Any]


class ErrorAnswer(TypedDict):
    """Every failure."""

    is_bifrost_error: Literal[False]
    status_code: int
    error: ErrorText
    extra_fields: ExtraFields

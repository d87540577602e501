"""A row of logs.db as a frozen value."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallRow:
    """One call, allowed or refused. Times are milliseconds since 1970 UTC or spans in milliseconds; money is nano-dollars."""

    id: str
    at_ms: int
    status: str
    """`success`, `error` (the provider's), `refused` (ours), `cancelled` (the client left), `cut`, `unconfirmed`."""
    http_status: int
    provider: str = ""
    model: str = ""
    answered_model: str = ""
    operation: str = ""
    stream: bool = False
    way_in: str = ""
    """`reverse` or `forward`."""
    virtual_key_id: str = ""
    virtual_key_name: str = ""
    team_id: str = ""
    customer_id: str = ""
    run_id: str = ""
    provider_key_id: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanos: int = 0
    priced: bool = True
    """False when no price was known: the cost is then not zero but unknown."""
    estimated: bool = False
    held_nanos: int = 0
    price_source: str = ""
    caps_charged: tuple[str, ...] = ()
    """Ids of the caps that were held and charged."""
    refusal_type: str = ""
    refusal_cap: str = ""
    """Id of the cap named in the refusal."""
    message: str = ""
    latency_ms: int = 0
    first_token_ms: int | None = None
    stop_reason: str = ""
    method: str = ""
    path: str = ""
    client: str = ""
    """The caller's User-Agent, shortened."""
    count: int = 1
    """Identical refusals within a second share one row."""
    text_bytes: int = 0
    """Bytes of decoded request text: with `input_tokens`, what the estimator learns from."""
    exceeded: str = ""
    """Of a refusal: the caps in the way with their sums at that instant, as `store.logs.exceeded` writes them."""
    routing_rule_id: str = ""
    """The rule that chose the provider; empty when none did."""
    recalculated_nanos: int | None = None
    """What it would cost at the prices of a later day, when somebody asked; no sum and no budget knows of it."""
    recalculated_source: str = ""
    """Where those prices were from."""
    request_body: str | None = None
    response_body: str | None = None

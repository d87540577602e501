"""peewee tables of logs.db. The schema itself is made by `store/logs/schema.py`; a test keeps the two alike."""

from peewee import BigIntegerField, BooleanField, CompositeKey, IntegerField, Model, TextField


class CallLog(Model):
    """One call, or identical refusals within a second. Columns as in `store.logs.types.CallRow`, bodies apart.

    `number` orders rows of one millisecond. `ledger_sequence` is the last ledger row that this row accounts for (0: none seen
    yet), `ledger_nanos` what the ledger has booked for the call up to it, `ledger` which ledger (`LogLedger.number`) that is.
    """

    number = BigIntegerField(primary_key=True)
    id = TextField(unique=True)
    at_ms = BigIntegerField()
    status = TextField()
    http_status = IntegerField()
    provider = TextField()
    model = TextField()
    answered_model = TextField()
    operation = TextField()
    stream = BooleanField()
    way_in = TextField()
    virtual_key_id = TextField()
    virtual_key_name = TextField()
    team_id = TextField()
    customer_id = TextField()
    run_id = TextField()
    provider_key_id = TextField()
    input_tokens = BigIntegerField()
    output_tokens = BigIntegerField()
    cache_read_tokens = BigIntegerField()
    cache_write_tokens = BigIntegerField()
    reasoning_tokens = BigIntegerField()
    cost_nanos = BigIntegerField()
    priced = BooleanField()
    estimated = BooleanField()
    held_nanos = BigIntegerField()
    price_source = TextField()
    caps_charged = TextField()
    refusal_type = TextField()
    refusal_cap = TextField()
    message = TextField()
    latency_ms = BigIntegerField()
    first_token_ms = BigIntegerField(null=True)
    stop_reason = TextField()
    method = TextField()
    path = TextField()
    client = TextField()
    count = BigIntegerField()
    text_bytes = BigIntegerField()
    ledger_sequence = BigIntegerField()
    ledger_nanos = BigIntegerField()
    ledger = BigIntegerField()
    exceeded = TextField()
    routing_rule_id = TextField()
    recalculated_nanos = BigIntegerField(null=True)
    recalculated_source = TextField()

    class Meta:
        table_name = "calls"


class BodyLog(Model):
    """The texts of one call, apart from its row so that lists stay quick. `…_bytes` is the length before the cut."""

    call_id = TextField(primary_key=True)
    at_ms = BigIntegerField()
    request = TextField(null=True)
    request_bytes = BigIntegerField()
    response = TextField(null=True)
    response_bytes = BigIntegerField()

    class Meta:
        table_name = "bodies"


class DailyCost(Model):
    """Sums of one UTC day; they stay when the calls themselves are deleted."""

    day = TextField()
    virtual_key_id = TextField()
    team_id = TextField()
    customer_id = TextField()
    provider = TextField()
    model = TextField()
    calls = BigIntegerField()
    refused = BigIntegerField()
    failed = BigIntegerField()
    unpriced = BigIntegerField()
    input_tokens = BigIntegerField()
    output_tokens = BigIntegerField()
    cache_read_tokens = BigIntegerField()
    cache_write_tokens = BigIntegerField()
    cost_nanos = BigIntegerField()
    succeeded = BigIntegerField()
    cancelled = BigIntegerField()
    reasoning_tokens = BigIntegerField()
    timed = BigIntegerField()
    latency_ms = BigIntegerField()

    class Meta:
        table_name = "daily_costs"
        primary_key = CompositeKey("day", "virtual_key_id", "team_id", "customer_id", "provider", "model")


class TotalSums(Model):
    """The daily sums added up over all days: what counters and lists of values are read from."""

    virtual_key_id = TextField()
    team_id = TextField()
    customer_id = TextField()
    provider = TextField()
    model = TextField()
    calls = BigIntegerField()
    refused = BigIntegerField()
    failed = BigIntegerField()
    unpriced = BigIntegerField()
    input_tokens = BigIntegerField()
    output_tokens = BigIntegerField()
    cache_read_tokens = BigIntegerField()
    cache_write_tokens = BigIntegerField()
    cost_nanos = BigIntegerField()
    succeeded = BigIntegerField()
    cancelled = BigIntegerField()
    reasoning_tokens = BigIntegerField()
    timed = BigIntegerField()
    latency_ms = BigIntegerField()

    class Meta:
        table_name = "total_sums"
        primary_key = CompositeKey("virtual_key_id", "team_id", "customer_id", "provider", "model")


class DailyLatency(Model):
    """How many calls of one day took how long, in steps (`store.logs.latencies`)."""

    day = TextField()
    provider = TextField()
    step = BigIntegerField()
    calls = BigIntegerField()

    class Meta:
        table_name = "daily_latencies"
        primary_key = CompositeKey("day", "provider", "step")


class DeletedCall(Model):
    """A call whose row somebody has deleted: it is not made again from the ledger."""

    id = TextField(primary_key=True)
    at_ms = BigIntegerField()

    class Meta:
        table_name = "deleted_calls"


class LogLedger(Model):
    """A ledger that the logs follow or have followed: every row up to `watermark`, which was of `call_id`, is in them."""

    number = BigIntegerField(primary_key=True)
    identity = TextField()
    watermark = BigIntegerField()
    call_id = TextField()

    class Meta:
        table_name = "log_ledgers"


class LogMeta(Model):
    """Single values: calls from before `deleted_before_ms` were deleted by the retention."""

    key = TextField(primary_key=True)
    value = BigIntegerField()

    class Meta:
        table_name = "log_meta"

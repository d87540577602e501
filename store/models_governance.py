"""peewee tables of the governance: providers, keys, teams, customers, model configs, rules, prices, prompts, audit. Nothing else.

The caps of all of them are the ledger's (`store/models.py`), joined by scope and scope id.
"""

from peewee import (
    AutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    FloatField,
    ForeignKeyField,
    IntegerField,
    Model,
    TextField,
)


class ProviderRow(Model):
    """A configured provider."""

    name = TextField(primary_key=True)
    base_provider = TextField(null=True)
    base_url = TextField(null=True)
    hosts = TextField(default="[]")
    extra_headers = TextField(default="{}")
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "providers"


class ProviderKeyRow(Model):
    """A provider's credential: `env.NAME`, the text, or cipher text (`sealed`)."""

    id = TextField(primary_key=True)
    provider = ForeignKeyField(ProviderRow, column_name="provider", on_delete="CASCADE")
    name = TextField()
    secret = TextField()
    sealed = BooleanField()
    hint = TextField()
    models = TextField()
    blacklisted_models = TextField()
    weight = FloatField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "provider_keys"
        indexes = ((("provider", "name"), True),)


class CustomerRow(Model):
    """A customer: caps all its teams and keys."""

    id = TextField(primary_key=True)
    name = TextField(unique=True)
    calendar_aligned = BooleanField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "customers"


class TeamRow(Model):
    """A team: caps all its keys."""

    id = TextField(primary_key=True)
    name = TextField(unique=True)
    customer = ForeignKeyField(CustomerRow, column_name="customer_id", null=True, on_delete="SET NULL")
    calendar_aligned = BooleanField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "teams"


class VirtualKeyRow(Model):
    """A virtual key. `value` is null when only the hash is kept. `previous_hash` opens the door until `previous_until_ms`."""

    id = TextField(primary_key=True)
    name = TextField(unique=True)
    description = TextField()
    value = TextField(null=True)
    value_hash = TextField(unique=True)
    hint = TextField()
    is_active = BooleanField()
    expires_at_ms = BigIntegerField(null=True)
    team = ForeignKeyField(TeamRow, column_name="team_id", null=True, on_delete="SET NULL")
    customer = ForeignKeyField(CustomerRow, column_name="customer_id", null=True, on_delete="SET NULL")
    calendar_aligned = BooleanField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()
    previous_hash = TextField(null=True)
    previous_until_ms = BigIntegerField(null=True)

    class Meta:
        table_name = "virtual_keys"


class ProviderConfigRow(Model):
    """What a virtual key may do at one provider; several rows may name the same provider."""

    id = TextField(primary_key=True)
    virtual_key = ForeignKeyField(VirtualKeyRow, column_name="virtual_key_id", on_delete="CASCADE")
    position = IntegerField()
    provider = TextField()
    weight = FloatField(null=True)
    allowed_models = TextField()
    blacklisted_models = TextField()
    key_ids = TextField()
    calendar_aligned = BooleanField()

    class Meta:
        table_name = "provider_configs"


class RunCredentialRow(Model):
    """A short-lived credential of `exec`."""

    id = TextField(primary_key=True)
    virtual_key = ForeignKeyField(VirtualKeyRow, column_name="virtual_key_id", on_delete="CASCADE")
    value_hash = TextField(unique=True)
    hint = TextField()
    budget_nanos = BigIntegerField(null=True)
    created_ms = BigIntegerField()
    expires_at_ms = BigIntegerField()

    class Meta:
        table_name = "run_credentials"


class ModelConfigRow(Model):
    """Whom caps on a model bind: all calls (`global`) or those of one virtual key; `provider` and `scope_id` are empty for any."""

    id = TextField(primary_key=True)
    model_name = TextField()
    provider = TextField()
    scope = TextField()
    scope_id = TextField()
    calendar_aligned = BooleanField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "model_configs"
        indexes = ((("scope", "scope_id", "model_name", "provider"), True),)


class RoutingRuleRow(Model):
    """A rule that chooses provider and model. `targets`, `fallbacks` and `query` are JSON."""

    id = TextField(primary_key=True)
    name = TextField()
    description = TextField()
    enabled = BooleanField()
    chain_rule = BooleanField()
    cel_expression = TextField()
    targets = TextField()
    fallbacks = TextField()
    scope = TextField()
    scope_id = TextField()
    query = TextField()
    priority = IntegerField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "routing_rules"
        indexes = ((("scope", "scope_id", "name"), True),)


class PricingOverrideRow(Model):
    """Prices of one's own. `request_types` and `patch` are JSON; ids that do not apply are empty."""

    id = TextField(primary_key=True)
    name = TextField()
    scope_kind = TextField()
    virtual_key_id = TextField()
    provider_id = TextField()
    provider_key_id = TextField()
    match_type = TextField()
    pattern = TextField()
    request_types = TextField()
    patch = TextField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "pricing_overrides"


class PromptRow(Model):
    """A named text; its versions are rows of their own."""

    id = TextField(primary_key=True)
    name = TextField(unique=True)
    description = TextField()
    created_ms = BigIntegerField()
    updated_ms = BigIntegerField()

    class Meta:
        table_name = "prompts"


class PromptVersionRow(Model):
    """One version of a prompt; never changed."""

    prompt = ForeignKeyField(PromptRow, column_name="prompt_id", on_delete="CASCADE")
    version = IntegerField()
    text = TextField()
    note = TextField()
    created_ms = BigIntegerField()

    class Meta:
        table_name = "prompt_versions"
        primary_key = CompositeKey("prompt", "version")


class AuditRow(Model):
    """Who changed what, from where, before and after (JSON documents without secrets). Only ever added to."""

    sequence = AutoField()
    at_ms = BigIntegerField()
    actor = TextField()
    method = TextField()
    address = TextField()
    action = TextField()
    kind = TextField()
    entity_id = TextField()
    entity_name = TextField()
    before = TextField(null=True)
    after = TextField(null=True)
    details = TextField(null=True)
    reason = TextField()
    digest = TextField()

    class Meta:
        table_name = "audit"


class AuditChainRow(Model):
    """Where the chain of the audit log's digests begins (after the last row that the retention took away) and ends."""

    place = TextField(primary_key=True)
    sequence = BigIntegerField()
    digest = TextField()

    class Meta:
        table_name = "audit_chain"


class EndedSessionRow(Model):
    """A console session that was ended before its time; the row may go at `until_ms`."""

    id = TextField(primary_key=True)
    until_ms = BigIntegerField()

    class Meta:
        table_name = "ended_sessions"


class ConfigMetaRow(Model):
    """Single facts about the configuration, such as the salt of its encryption."""

    key = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "config_meta"


GOVERNANCE_TABLES = (
    ProviderRow,
    ProviderKeyRow,
    CustomerRow,
    TeamRow,
    VirtualKeyRow,
    ProviderConfigRow,
    RunCredentialRow,
    ModelConfigRow,
    RoutingRuleRow,
    PricingOverrideRow,
    PromptRow,
    PromptVersionRow,
    AuditRow,
    AuditChainRow,
    EndedSessionRow,
    ConfigMetaRow,
)

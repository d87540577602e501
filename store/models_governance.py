"""peewee tables of the governance: providers, virtual keys, teams, customers, run credentials. Tables and nothing else.

The caps of all of them are the ledger's (`store/models.py`), joined by scope and scope id.
"""

from peewee import BigIntegerField, BooleanField, FloatField, ForeignKeyField, IntegerField, Model, TextField


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
    """A virtual key. `value` is null when only the hash is kept."""

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
    ConfigMetaRow,
)

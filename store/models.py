"""The ledger's tables as peewee knows them. The schema itself is made by `store/migrations`; a test keeps the two alike."""

from typing import Any

import peewee


class AnyField(peewee.Field):
    """A column of whatever type its value has."""

    field_type = ""


class Meta(peewee.Model):
    """Single values: `revision` counts the edits of configuration and caps."""

    key = peewee.TextField(primary_key=True)
    value = AnyField()

    class Meta:
        table_name = "meta"


class CapRow(peewee.Model):
    """A cap. `generation` counts the changes of its window, so that holds taken before one find their place after it."""

    id = peewee.TextField(primary_key=True)
    name = peewee.TextField()
    scope = peewee.TextField()
    scope_id = peewee.TextField()
    scope_name = peewee.TextField()
    unit = peewee.TextField()
    limit_amount = peewee.BigIntegerField()
    window = peewee.TextField(null=True)
    calendar_aligned = peewee.BooleanField()
    timezone = peewee.TextField()
    quarter_start_month = peewee.IntegerField()
    enforcement = peewee.TextField()
    strict = peewee.BooleanField()
    carry_over = peewee.BooleanField()
    created_ms = peewee.BigIntegerField()
    deleted = peewee.BooleanField()
    generation = peewee.IntegerField()

    class Meta:
        table_name = "caps"
        indexes = ((("scope", "scope_id"), False),)


class Balance(peewee.Model):
    """A cache: the sums of one cap in one window. A cap without a window has the start `NO_WINDOW`.

    `look_ms` is when it is next looked at for sealing; null: no more.
    """

    cap_id = peewee.TextField()
    window_start_ms = peewee.BigIntegerField()
    used = peewee.BigIntegerField()
    held = peewee.BigIntegerField()
    carried = peewee.BigIntegerField()
    look_ms = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "balances"
        primary_key = peewee.CompositeKey("cap_id", "window_start_ms")


class Hold(peewee.Model):
    """A hold, written once. `parts` is JSON: [[cap id, window start, amount, cap generation], …]; `facts` a JSON list."""

    call_id = peewee.TextField(primary_key=True)
    at_ms = peewee.BigIntegerField()
    epoch = peewee.TextField()
    amount_nanos = peewee.BigIntegerField()
    tokens = peewee.BigIntegerField()
    alone = peewee.BooleanField()
    parts = peewee.TextField()
    facts = peewee.TextField()

    class Meta:
        table_name = "holds"


class OpenHold(peewee.Model):
    """A cache: the holds without a post, by owner."""

    call_id = peewee.TextField(primary_key=True)
    epoch = peewee.TextField()
    at_ms = peewee.BigIntegerField()

    class Meta:
        table_name = "open_holds"


class Post(peewee.Model):
    """How a call ended, written once; step 1 settles, step 2 corrects. `parts`: [[cap id, window start, amount used], …]."""

    sequence = peewee.AutoField()
    call_id = peewee.TextField()
    step = peewee.IntegerField()
    kind = peewee.TextField()
    at_ms = peewee.BigIntegerField()
    held_ms = peewee.BigIntegerField()
    cost_nanos = peewee.BigIntegerField()
    tokens = peewee.BigIntegerField()
    input_tokens = peewee.BigIntegerField()
    output_tokens = peewee.BigIntegerField()
    flags = peewee.IntegerField()
    model = peewee.TextField()
    price_source = peewee.TextField()
    note = peewee.TextField()
    parts = peewee.TextField()

    class Meta:
        table_name = "posts"
        indexes = ((("call_id", "step"), True),)


class Entry(peewee.Model):
    """Something that happened to a cap itself, written once: reset, top-up, changed limit or window, carry-over.

    `posts_sequence` is the last post before it.
    """

    sequence = peewee.AutoField()
    cap_id = peewee.TextField()
    window_start_ms = peewee.BigIntegerField()
    kind = peewee.TextField()
    amount = peewee.BigIntegerField()
    at_ms = peewee.BigIntegerField()
    posts_sequence = peewee.BigIntegerField()
    reason = peewee.TextField()

    class Meta:
        table_name = "entries"
        indexes = ((("cap_id", "window_start_ms"), False),)


class Raise(peewee.Model):
    """A temporary addition to a cap's limit. `ended_ms` is null until its time is up or somebody took it back."""

    id = peewee.AutoField()
    cap_id = peewee.TextField()
    amount = peewee.BigIntegerField()
    from_ms = peewee.BigIntegerField()
    until_ms = peewee.BigIntegerField()
    reason = peewee.TextField()
    ended_ms = peewee.BigIntegerField(null=True)

    class Meta:
        table_name = "raises"


class Chore(peewee.Model):
    """How far something that is done now and then has come."""

    name = peewee.TextField(primary_key=True)
    at_ms = peewee.BigIntegerField()
    position = peewee.BigIntegerField()

    class Meta:
        table_name = "chores"


class Seal(peewee.Model):
    """The sums of a window that is over, or of a balance without a window up to some day.

    Rows up to the sequences named are explained by it and may be pruned.
    """

    cap_id = peewee.TextField()
    window_start_ms = peewee.BigIntegerField()
    used = peewee.BigIntegerField()
    carried = peewee.BigIntegerField()
    posts_sequence = peewee.BigIntegerField()
    entries_sequence = peewee.BigIntegerField()
    at_ms = peewee.BigIntegerField()

    class Meta:
        table_name = "seals"
        primary_key = peewee.CompositeKey("cap_id", "window_start_ms")


class Epoch(peewee.Model):
    """One run of one process that may hold: alive while its lease file is locked, on PostgreSQL while `heartbeat_ms` is fresh.

    `ended_ms` fences it.
    """

    id = peewee.TextField(primary_key=True)
    started_ms = peewee.BigIntegerField()
    ended_ms = peewee.BigIntegerField(null=True)
    process_id = peewee.IntegerField()
    lease = peewee.TextField()
    heartbeat_ms = peewee.BigIntegerField()

    class Meta:
        table_name = "epochs"


class LedgerIdentity(peewee.Model):
    """One row: which ledger this is, so that logs of another one are not taken for its own."""

    id = peewee.TextField(primary_key=True)

    class Meta:
        table_name = "ledger_identity"


class Change(peewee.Model):
    """What one revision of the governance changed."""

    revision = peewee.BigIntegerField(primary_key=True)
    kind = peewee.TextField()
    entity_id = peewee.TextField()

    class Meta:
        table_name = "changes"


LEDGER_MODELS: tuple[Any, ...] = (
    Meta,
    CapRow,
    Balance,
    Hold,
    OpenHold,
    Post,
    Entry,
    Raise,
    Chore,
    Seal,
    Epoch,
    LedgerIdentity,
    Change,
)

"""Model configs, routing rules, prices of one's own, prompts, the audit log, and the overlap of a key's rotation."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.database import Connection

_STATEMENTS = (
    """CREATE TABLE model_configs (
        id TEXT NOT NULL PRIMARY KEY, model_name TEXT NOT NULL, provider TEXT NOT NULL, scope TEXT NOT NULL, scope_id TEXT NOT NULL,
        calendar_aligned INTEGER NOT NULL, created_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL
    )""",
    "CREATE UNIQUE INDEX model_configs_target ON model_configs (scope, scope_id, model_name, provider)",
    # Until now a cap on a model named the model itself: such a config has the model's name for its id.
    """INSERT INTO model_configs (id, model_name, provider, scope, scope_id, calendar_aligned, created_ms, updated_ms)
        SELECT scope_id, scope_id, '', 'global', '', 0, min(created_ms), min(created_ms) FROM caps
        WHERE scope = 'model' AND deleted = 0 AND NOT EXISTS (SELECT 1 FROM config_meta WHERE key = 'governance' AND value = 'file')
        GROUP BY scope_id""",
    """CREATE TABLE routing_rules (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, enabled INTEGER NOT NULL,
        chain_rule INTEGER NOT NULL, cel_expression TEXT NOT NULL, targets TEXT NOT NULL, fallbacks TEXT NOT NULL,
        scope TEXT NOT NULL, scope_id TEXT NOT NULL, query TEXT NOT NULL, priority INTEGER NOT NULL,
        created_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL
    )""",
    "CREATE UNIQUE INDEX routing_rules_name ON routing_rules (scope, scope_id, name)",
    """CREATE TABLE pricing_overrides (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, scope_kind TEXT NOT NULL, virtual_key_id TEXT NOT NULL,
        provider_id TEXT NOT NULL, provider_key_id TEXT NOT NULL, match_type TEXT NOT NULL, pattern TEXT NOT NULL,
        request_types TEXT NOT NULL, patch TEXT NOT NULL, created_ms BIGINT NOT NULL, updated_ms BIGINT NOT NULL
    )""",
    """CREATE TABLE prompts (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL, created_ms BIGINT NOT NULL,
        updated_ms BIGINT NOT NULL
    )""",
    """CREATE TABLE prompt_versions (
        prompt_id TEXT NOT NULL REFERENCES prompts (id) ON DELETE CASCADE, version INTEGER NOT NULL, text TEXT NOT NULL,
        note TEXT NOT NULL, created_ms BIGINT NOT NULL, PRIMARY KEY (prompt_id, version)
    )""",
    """CREATE TABLE audit (
        sequence INTEGER PRIMARY KEY, at_ms BIGINT NOT NULL, actor TEXT NOT NULL, method TEXT NOT NULL, address TEXT NOT NULL,
        action TEXT NOT NULL, kind TEXT NOT NULL, entity_id TEXT NOT NULL, entity_name TEXT NOT NULL, before TEXT, after TEXT,
        details TEXT, reason TEXT NOT NULL, digest TEXT NOT NULL
    )""",
    "CREATE INDEX audit_time ON audit (at_ms, sequence)",
    "CREATE INDEX audit_actor ON audit (actor, at_ms, sequence)",
    "CREATE INDEX audit_action ON audit (action, at_ms, sequence)",
    "CREATE INDEX audit_kind ON audit (kind, at_ms, sequence)",
    "CREATE INDEX audit_entity ON audit (entity_id, at_ms, sequence)",
    # Pairs of conditions of which each alone lets many rows through.
    "CREATE INDEX audit_actor_kind ON audit (actor, kind, at_ms, sequence)",
    "CREATE INDEX audit_actor_action ON audit (actor, action, at_ms, sequence)",
    "CREATE INDEX audit_kind_action ON audit (kind, action, at_ms, sequence)",
    # `begin`: the last row that the retention took away; `end`: the last row there is.
    "CREATE TABLE audit_chain (place TEXT NOT NULL PRIMARY KEY, sequence BIGINT NOT NULL, digest TEXT NOT NULL)",
    "INSERT INTO audit_chain (place, sequence, digest) VALUES ('begin', 0, ''), ('end', 0, '')",
    # Sessions that were ended before their time.
    "CREATE TABLE ended_sessions (id TEXT NOT NULL PRIMARY KEY, until_ms BIGINT NOT NULL)",
    # What each revision changed: a process that has the governance in memory reads that alone.
    "CREATE TABLE changes (revision BIGINT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, entity_id TEXT NOT NULL)",
    # The value before the last rotation, and until when it opens the door.
    "ALTER TABLE virtual_keys ADD COLUMN previous_hash TEXT",
    "ALTER TABLE virtual_keys ADD COLUMN previous_until_ms BIGINT",
    "CREATE INDEX virtual_keys_previous ON virtual_keys (previous_hash)",
)


# The audit log only grows; what its retention has passed (`begin`) may go. An empty database may be emptied again, chain first.
_KEPT = {
    "sqlite": (
        """CREATE TRIGGER audit_never_deleted BEFORE DELETE ON audit
            WHEN old.sequence > (SELECT sequence FROM audit_chain WHERE place = 'begin')
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
        """CREATE TRIGGER audit_never_changed BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END""",
    ),
    "postgres": (
        """CREATE FUNCTION audit_kept() RETURNS trigger LANGUAGE plpgsql AS $kept$
            BEGIN
                IF TG_OP = 'DELETE' THEN
                    IF NOT EXISTS (SELECT FROM audit_chain WHERE place = 'begin' AND sequence < OLD.sequence) THEN
                        RETURN OLD;
                    END IF;
                ELSIF TG_OP = 'TRUNCATE' THEN
                    IF NOT EXISTS (SELECT FROM audit_chain) THEN
                        RETURN NULL;
                    END IF;
                END IF;
                RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation';
            END $kept$""",
        "CREATE TRIGGER audit_rows_kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_kept()",
        "CREATE TRIGGER audit_table_kept BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_kept()",
    ),
}


def up(connection: "Connection") -> None:
    """Makes the tables, the columns and the triggers."""
    for statement in _STATEMENTS:
        connection.define(statement)
    for statement in _KEPT[connection.engine]:
        connection.execute(statement)

"""The migration and the peewee tables describe the same schema, and peewee can use it."""

from store.database import Database
from store.models_governance import GOVERNANCE_TABLES, TeamRow, VirtualKeyRow


def test_every_table_has_the_columns_that_peewee_knows(database: Database) -> None:
    with database.read() as connection:
        for table in GOVERNANCE_TABLES:
            meta = table._meta
            columns = connection.peewee.get_columns(meta.table_name)
            # SQLite calls a column that numbers itself nullable; a key never is.
            found = {column.name: (not column.null or column.primary_key, column.primary_key) for column in columns}
            keys = {field.column_name for field in meta.get_primary_keys()}
            known = {field.column_name: (not field.null, field.column_name in keys) for field in meta.sorted_fields}
            assert found == known, meta.table_name


def test_foreign_keys_hold(database: Database) -> None:
    with database.write() as connection:
        connection.execute("INSERT INTO teams VALUES ('t', 'Blue', NULL, 0, 1, 1)")
        connection.execute(
            "INSERT INTO virtual_keys VALUES ('v', 'key', '', NULL, 'hash', 'hint', 1, NULL, 't', NULL, 0, 1, 1, NULL, NULL)"
        )
        connection.execute("DELETE FROM teams")
        with VirtualKeyRow.bind_ctx(connection.peewee), TeamRow.bind_ctx(connection.peewee):
            assert VirtualKeyRow.get_by_id("v").team is None

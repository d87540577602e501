"""Changes of prompts. They are kept for people and programs to read; no call is rewritten by them."""

from collections.abc import Sequence

from store.config_store.read_prompts import PromptRecord, PromptVersionRecord, get_prompt, version_page
from store.config_store.specs_prompts import MOST_VERSIONS, PromptPatch, PromptSpec, PromptVersionSpec
from store.config_store.store import ConfigStore
from store.database import Connection
from store.errors import Conflict, UserError


def create_prompt(store: ConfigStore, spec: PromptSpec) -> PromptRecord:
    """Make a prompt with its versions. Raises Conflict."""
    with store.editing("create", "prompt") as edit:
        record = put_prompt(store, edit.connection, spec, None)
        edit.id = record.id
        return record


def update_prompt(store: ConfigStore, id_or_name: str, patch: PromptPatch) -> PromptRecord:
    """Change a prompt; another text becomes its newest version. Raises NotFound, Conflict, UserError."""
    with store.editing("update", "prompt", id_or_name) as edit:
        connection = edit.connection
        before = get_prompt(connection, id_or_name)
        if patch.note and patch.text in (None, before.text):
            raise UserError("note: belongs to a new version; give a text that is another than the newest")
        _refuse_name(connection, patch.name, before.id)
        now_ms = store.clock.now_ms()
        connection.execute(
            "UPDATE prompts SET name = ?, description = ?, updated_ms = ? WHERE id = ?",
            (
                before.name if patch.name is None else patch.name,
                before.description if patch.description is None else patch.description,
                now_ms,
                before.id,
            ),
        )
        if patch.text is not None and patch.text != before.text:
            _add(connection, before.id, before.version + 1, patch.text, patch.note, now_ms)
        return get_prompt(connection, before.id)


def add_version(store: ConfigStore, id_or_name: str, spec: PromptVersionSpec) -> PromptVersionRecord:
    """Add a version, whatever its text. Raises NotFound, Conflict."""
    with store.editing("update", "prompt", id_or_name) as edit:
        before = get_prompt(edit.connection, id_or_name)
        now_ms = store.clock.now_ms()
        _add(edit.connection, before.id, before.version + 1, spec.text, spec.note, now_ms)
        edit.connection.execute("UPDATE prompts SET updated_ms = ? WHERE id = ?", (now_ms, before.id))
        return PromptVersionRecord(before.id, before.version + 1, spec.text, spec.note, now_ms)


def delete_prompt(store: ConfigStore, id_or_name: str) -> None:
    """Delete a prompt with its versions. Raises NotFound."""
    with store.editing("delete", "prompt", id_or_name) as edit:
        prompt = get_prompt(edit.connection, id_or_name)
        edit.connection.execute("DELETE FROM prompt_versions WHERE prompt_id = ?", (prompt.id,))
        edit.connection.execute("DELETE FROM prompts WHERE id = ?", (prompt.id,))


def put_prompt(store: ConfigStore, connection: Connection, spec: PromptSpec, before: PromptRecord | None) -> PromptRecord:
    """Make a prompt, or bring one to what an export says, inside a transaction: versions are only ever added.

    Raises Conflict when the name or id is taken, or when a version that there is would be another.
    """
    now_ms = store.clock.now_ms()
    prompt_id = before.id if before else spec.id or store.ids.new()
    _refuse_name(connection, spec.name, before.id if before else None)
    if before is None:
        if connection.execute("SELECT 1 FROM prompts WHERE id = ?", (prompt_id,)):
            raise Conflict(f"there is already a prompt with the id {prompt_id!r}; choose another, or leave it out")
        connection.execute(
            "INSERT INTO prompts (id, name, description, created_ms, updated_ms) VALUES (?, ?, ?, ?, ?)",
            (prompt_id, spec.name, spec.description, now_ms, now_ms),
        )
    else:
        connection.execute(
            "UPDATE prompts SET name = ?, description = ?, updated_ms = ? WHERE id = ?",
            (spec.name, spec.description, now_ms, prompt_id),
        )
    known = [(row.text, row.note) for row in reversed(version_page(connection, prompt_id)[0])]
    for number, (text, note) in enumerate(_wanted(spec, before, known), 1):
        if number <= len(known):
            if known[number - 1] != (text, note):
                raise Conflict(f"version {number} of the prompt {spec.name!r} is another one here, and versions are never changed")
            continue
        _add(connection, prompt_id, number, text, note, now_ms)
    return get_prompt(connection, prompt_id)


def _wanted(spec: PromptSpec, before: PromptRecord | None, known: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """The versions there should be. A text alone is the newest one's."""
    if spec.versions or before is None:
        return spec.texts
    return known if before.text == spec.text else [*known, *spec.texts]


def _add(connection: Connection, prompt_id: str, version: int, text: str, note: str, now_ms: int) -> None:
    if version > MOST_VERSIONS:
        raise Conflict(f"this prompt has {MOST_VERSIONS} versions, and no more are kept; make a new prompt")
    connection.execute(
        "INSERT INTO prompt_versions (prompt_id, version, text, note, created_ms) VALUES (?, ?, ?, ?, ?)",
        (prompt_id, version, text, note, now_ms),
    )


def _refuse_name(connection: Connection, name: str | None, own_id: str | None) -> None:
    if name is None:
        return
    rows = connection.execute("SELECT id FROM prompts WHERE name = ?", (name,))
    if rows and rows[0][0] != own_id:
        raise Conflict(f"there is already a prompt named {name!r}; choose another name")

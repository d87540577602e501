"""Prompts are named texts in numbered versions that only grow."""

import json
from dataclasses import replace

import pytest
from pydantic import ValidationError

from store.config_store.audit import AuditQuery, audit_page
from store.config_store.documents import document, entity_tag, prompt_document
from store.config_store.prompts import add_version, create_prompt, delete_prompt, put_prompt, update_prompt
from store.config_store.read_prompts import all_versions, difference, find_prompt, get_version, prompt_page, version_page
from store.config_store.specs_prompts import LONGEST_TEXT, MOST_VERSIONS, PromptPatch, PromptSpec, PromptVersionSpec
from store.config_store.store import ConfigStore
from store.errors import Conflict, NotFound, PreconditionFailed, UserError
from tests.store.config_store.conftest import StillClock


def greeting(store: ConfigStore) -> str:
    return create_prompt(store, PromptSpec(name="greeting", description="says hello", text="Hello", note="first")).id


def texts(store: ConfigStore, prompt_id: str) -> list[tuple[int, str, str]]:
    with store.database.read() as connection:
        return [(row.version, row.text, row.note) for row in version_page(connection, prompt_id)[0]]


def test_another_text_is_another_version_and_the_same_is_none(store: ConfigStore, clock: StillClock) -> None:
    prompt_id = greeting(store)
    clock.at_ms += 1000
    after = update_prompt(store, "greeting", PromptPatch(text="Hi", note="shorter"))
    assert (after.version, after.text, after.note, after.updated_ms - after.created_ms) == (2, "Hi", "shorter", 1000)
    assert update_prompt(store, prompt_id, PromptPatch(text="Hi", description="greets")).version == 2
    assert add_version(store, prompt_id, PromptVersionSpec(text="Hi")).version == 3, "asked for by name, the same text is one too"
    assert update_prompt(store, prompt_id, PromptPatch(name="salute")).name == "salute"
    assert texts(store, prompt_id) == [(3, "Hi", ""), (2, "Hi", "shorter"), (1, "Hello", "first")]
    with pytest.raises(UserError, match="note: belongs to a new version"):
        update_prompt(store, prompt_id, PromptPatch(note="lost", text="Hi"))


def test_names_are_one_prompts_and_ids_go_before_names(store: ConfigStore) -> None:
    first = greeting(store)
    with pytest.raises(Conflict, match="already a prompt named 'greeting'"):
        greeting(store)
    create_prompt(store, PromptSpec(name=first, text="named like the other's id"))
    with store.database.read() as connection:
        found = find_prompt(connection, first)
        assert found is not None and found.name == "greeting"
        assert find_prompt(connection, "none") is None
    with pytest.raises(Conflict, match="already a prompt named"):
        update_prompt(store, first, PromptPatch(name=first))
    with pytest.raises(Conflict, match="with the id"):
        create_prompt(store, PromptSpec(name="third", id=first, text="x"))


def test_deleting_takes_the_versions_along(store: ConfigStore) -> None:
    prompt_id = greeting(store)
    delete_prompt(store, "greeting")
    assert texts(store, prompt_id) == []
    with pytest.raises(NotFound, match="there is no prompt 'greeting'"):
        delete_prompt(store, "greeting")
    with pytest.raises(NotFound):
        add_version(store, prompt_id, PromptVersionSpec(text="x"))


def test_pages_and_search(store: ConfigStore) -> None:
    for name in ("b", "a", "c_%"):
        create_prompt(store, PromptSpec(name=name, description=f"about {name.upper()}", text="x"))
    with store.database.read() as connection:
        assert [record.name for record in prompt_page(connection, "", None, 0)[0]] == ["a", "b", "c_%"]
        found, total = prompt_page(connection, "", 1, 1)
        assert ([record.name for record in found], total) == (["b"], 3)
        assert [record.name for record in prompt_page(connection, "ABOUT b", None, 0)[0]] == ["b"]
        assert [record.name for record in prompt_page(connection, "_%", None, 0)[0]] == ["c_%"]


def test_versions_are_compared(store: ConfigStore) -> None:
    prompt_id = create_prompt(store, PromptSpec(name="p", text="one\ntwo\nthree\n")).id
    update_prompt(store, prompt_id, PromptPatch(text="one\n2\nthree\n"))
    with store.database.read() as connection:
        prompt = find_prompt(connection, prompt_id)
        assert prompt is not None
        old, new = get_version(connection, prompt, 1), get_version(connection, prompt, 2)
        with pytest.raises(NotFound, match="has no version 3; its newest is 2"):
            get_version(connection, prompt, 3)
    assert difference(old, new).splitlines() == [
        "--- version 1",
        "+++ version 2",
        "@@ -1,3 +1,3 @@",
        " one",
        "-two",
        "+2",
        " three",
    ]
    assert difference(old, old) == ""
    with pytest.raises(UserError, match="up to 5000 lines"):
        difference(old, replace(new, text="\n" * 6000))


def test_the_log_has_the_text_of_each_version_and_stale_edits_are_refused(store: ConfigStore) -> None:
    prompt_id = greeting(store)
    with store.reading() as (connection, ledger):
        before = document(connection, ledger, "prompt", "greeting")
    assert before is not None
    update_prompt(replace(store, if_match=entity_tag(before)), prompt_id, PromptPatch(text="Hi"))
    with pytest.raises(PreconditionFailed):
        update_prompt(replace(store, if_match=entity_tag(before)), prompt_id, PromptPatch(text="Ho"))
    with store.ledger.read() as connection:
        entry = audit_page(connection, AuditQuery(kind="prompt"), 1, 0).entries[0]
    assert (json.loads(entry.before or "")["text"], json.loads(entry.after or "")["text"]) == ("Hello", "Hi")


def test_an_exported_prompt_comes_back_with_every_version(store: ConfigStore) -> None:
    prompt_id = greeting(store)
    update_prompt(store, prompt_id, PromptPatch(text="Hi", note="shorter"))
    with store.database.read() as connection:
        record = find_prompt(connection, prompt_id)
        assert record is not None
        made = prompt_document(record, all_versions(connection)[prompt_id])
    delete_prompt(store, prompt_id)
    with store.changing() as connection:
        put_prompt(store, connection, PromptSpec.model_validate(made), None)
    assert texts(store, prompt_id) == [(2, "Hi", "shorter"), (1, "Hello", "first")]
    more = {**made, "versions": [*made["versions"], {"version": 3, "text": "Ho"}]}
    with store.changing() as connection:
        put_prompt(store, connection, PromptSpec.model_validate(more), find_prompt(connection, prompt_id))
    assert texts(store, prompt_id)[0] == (3, "Ho", "")
    other = {**made, "versions": [{"version": 1, "text": "rewritten"}]}
    with pytest.raises(Conflict, match="version 1 of the prompt 'greeting' is another one here"), store.changing() as connection:
        put_prompt(store, connection, PromptSpec.model_validate(other), find_prompt(connection, prompt_id))
    with store.changing() as connection:
        put_prompt(store, connection, PromptSpec(name="greeting", text="Ho"), find_prompt(connection, prompt_id))
        put_prompt(store, connection, PromptSpec(name="greeting", text="Hey"), find_prompt(connection, prompt_id))
    assert [version for version, _, _ in texts(store, prompt_id)] == [4, 3, 2, 1]


def test_a_prompt_has_so_many_versions_and_no_more(store: ConfigStore) -> None:
    rows = [{"version": number, "text": str(number)} for number in range(1, MOST_VERSIONS + 1)]
    create_prompt(store, PromptSpec.model_validate({"name": "full", "versions": rows}))
    with pytest.raises(Conflict, match="no more are kept"):
        add_version(store, "full", PromptVersionSpec(text="x"))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "p"},
        {"name": "p", "text": ""},
        {"name": "", "text": "x"},
        {"name": "p", "text": "x" * (LONGEST_TEXT + 1)},
        {"name": "p", "text": "a\0b"},
        {"name": "p", "text": "x", "versions": [{"version": 1, "text": "x"}]},
        {"name": "p", "versions": [{"version": 2, "text": "x"}]},
        {"name": "p", "text": "x", "txt": "y"},
    ],
)
def test_shapes_that_make_no_sense(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PromptSpec.model_validate(fields)

"""`/api/prompts`: named texts in numbered versions; a version is never changed. Nothing here touches a call."""

from typing import NotRequired, TypedDict

from addons.console.api.answers import Done, Instant
from addons.console.api.paging import PageQuery, Whole, list_envelope
from addons.console.handler import ConsoleHandler
from addons.console.routes import Route, operation
from store.config_store import prompts
from store.config_store.fields import Text
from store.config_store.read_prompts import (
    PromptRecord,
    PromptVersionRecord,
    difference,
    get_prompt,
    get_version,
    prompt_page,
    version_page,
)
from store.config_store.shapes import Json, time_json
from store.config_store.specs import Spec
from store.config_store.specs_prompts import PromptPatch, PromptSpec, PromptVersionSpec
from store.errors import NotFound


class PromptAnswer(TypedDict):
    """A prompt with the text of its newest version."""

    id: str
    name: str
    description: str
    version: int
    text: str
    note: str
    created_at: Instant
    updated_at: Instant


class VersionAnswer(TypedDict):
    """One version. `diff` is the unified diff from the version that was asked for with `compare_to`."""

    prompt_id: str
    version: int
    text: str
    note: str
    created_at: Instant
    diff: NotRequired[str]


class PromptOne(TypedDict):
    """One prompt."""

    prompt: PromptAnswer


class PromptDone(PromptOne):
    """What was done, and the prompt after it."""

    message: str


class PromptList(TypedDict):
    """A page of prompts."""

    prompts: list[PromptAnswer]
    count: int
    total_count: int
    limit: int
    offset: int


class VersionOne(TypedDict):
    """One version."""

    version: VersionAnswer


class VersionDone(VersionOne):
    """What was done, and the version that came of it."""

    message: str


class VersionList(TypedDict):
    """A page of versions, newest first."""

    versions: list[VersionAnswer]
    count: int
    total_count: int
    limit: int
    offset: int


class PromptsQuery(PageQuery):
    """Which prompts."""

    filters = frozenset({"search"})

    search: Text = ""
    """Part of the name or description, in any case."""


class VersionQuery(Spec):
    """What to compare with."""

    compare_to: Whole = None


class PromptsHandler(ConsoleHandler):
    """The list, and making a prompt."""

    @operation("Prompts by name", query=PromptsQuery, answer=PromptList)
    async def get(self) -> None:
        query = self.query_as(PromptsQuery)
        limit, offset = query.page()
        found, total = await self.on_thread(self._page, query.search, limit, offset)
        self.send(list_envelope("prompts", found, total=total, limit=limit, offset=offset))

    @operation("Make a prompt", body=PromptSpec, answer=PromptDone)
    async def post(self) -> None:
        spec = self.body_as(PromptSpec)
        record = await self.on_thread(prompts.create_prompt, self.store, spec)
        await self.on_thread(self.tag, "prompt", record.id)
        self.send({"message": "Prompt created successfully", "prompt": prompt_json(record)})

    def _page(self, search: str, limit: int | None, offset: int) -> tuple[list[Json], int]:
        with self.context.store.database.read() as connection:
            records, total = prompt_page(connection, search, limit, offset)
        return [prompt_json(record) for record in records], total


class PromptHandler(ConsoleHandler):
    """One prompt, by id or name."""

    @operation("One prompt with its newest text", answer=PromptOne)
    async def get(self, prompt: str) -> None:
        record = await self.on_thread(self._one, prompt)
        self.send({"prompt": prompt_json(record)})

    @operation("Change a prompt; another text becomes its newest version", body=PromptPatch, answer=PromptDone)
    async def put(self, prompt: str) -> None:
        patch = self.body_as(PromptPatch)
        record = await self.on_thread(prompts.update_prompt, self.store, prompt, patch)
        await self.on_thread(self.tag, "prompt", record.id)
        self.send({"message": "Prompt updated successfully", "prompt": prompt_json(record)})

    @operation("Delete a prompt with its versions", answer=Done)
    async def delete(self, prompt: str) -> None:
        await self.on_thread(prompts.delete_prompt, self.store, prompt)
        self.send({"message": "Prompt deleted successfully"})

    def _one(self, id_or_name: str) -> PromptRecord:
        with self.context.store.database.read() as connection:
            record = get_prompt(connection, id_or_name)
        self.tag("prompt", record.id)
        return record


class VersionsHandler(ConsoleHandler):
    """The versions of a prompt, and adding one."""

    @operation("Versions of a prompt, newest first", query=PageQuery, answer=VersionList)
    async def get(self, prompt: str) -> None:
        limit, offset = self.query_as(PageQuery).page()
        found, total = await self.on_thread(self._page, prompt, limit, offset)
        self.send(list_envelope("versions", found, total=total, limit=limit, offset=offset))

    @operation("Add a version", body=PromptVersionSpec, answer=VersionDone)
    async def post(self, prompt: str) -> None:
        spec = self.body_as(PromptVersionSpec)
        record = await self.on_thread(prompts.add_version, self.store, prompt, spec)
        await self.on_thread(self.tag, "prompt", record.prompt_id)
        self.send({"message": "Version created successfully", "version": version_json(record)})

    def _page(self, id_or_name: str, limit: int | None, offset: int) -> tuple[list[Json], int]:
        with self.context.store.database.read() as connection:
            prompt = get_prompt(connection, id_or_name)
            records, total = version_page(connection, prompt.id, limit, offset)
        return [version_json(record) for record in records], total


class VersionHandler(ConsoleHandler):
    """One version; it is never another one."""

    @operation("One version of a prompt", query=VersionQuery, answer=VersionOne)
    async def get(self, prompt: str, version: str) -> None:
        query = self.query_as(VersionQuery)
        self.send({"version": await self.on_thread(self._one, prompt, version, query.compare_to)})

    def _one(self, id_or_name: str, number: str, compare_to: int | None) -> Json:
        if not (number.isascii() and number.isdigit() and len(number) <= 9):
            raise NotFound(f"{number!r} is no number of a version")
        with self.context.store.database.read() as connection:
            prompt = get_prompt(connection, id_or_name)
            record = get_version(connection, prompt, int(number))
            other = None if compare_to is None else get_version(connection, prompt, compare_to)
        made = version_json(record)
        return made if other is None else {**made, "diff": difference(other, record)}


def prompt_json(record: PromptRecord) -> Json:
    """A prompt as the API shows it."""
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "version": record.version,
        "text": record.text,
        "note": record.note,
        "created_at": time_json(record.created_ms),
        "updated_at": time_json(record.updated_ms),
    }


def version_json(record: PromptVersionRecord) -> Json:
    """A version as the API shows it."""
    return {
        "prompt_id": record.prompt_id,
        "version": record.version,
        "text": record.text,
        "note": record.note,
        "created_at": time_json(record.created_ms),
    }


ROUTES = (
    Route("/api/prompts", PromptsHandler),
    Route("/api/prompts/{prompt}", PromptHandler),
    Route("/api/prompts/{prompt}/versions", VersionsHandler),
    Route("/api/prompts/{prompt}/versions/{version}", VersionHandler),
)

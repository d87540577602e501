"""What people may ask for of prompts: named texts in numbered versions, none of which is ever changed."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from store.config_store.fields import Count, Id, Name, Reason, check_text
from store.config_store.specs import Spec

LONGEST_TEXT = 65_536
"""Characters of one version."""
MOST_VERSIONS = 1_000

PromptText = Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT), BeforeValidator(check_text)]
Description = Annotated[str, Field(max_length=10_000), BeforeValidator(check_text)]


class PromptVersionSpec(Spec):
    """A version to be added: its text, and a word on what is new about it."""

    read_only = frozenset({"version", "prompt_id", "created_at"})

    text: PromptText
    note: Reason = ""


class NumberedVersion(Spec):
    """A version as an export has it."""

    version: Annotated[Count, Field(ge=1)]
    text: PromptText
    note: Reason = ""


class PromptSpec(Spec):
    """A prompt to be made, with its first version; or, from an export, with all of them."""

    read_only = frozenset({"version", "created_at", "updated_at"})

    id: Id | None = None
    name: Name
    description: Description = ""
    text: PromptText | None = None
    note: Reason = ""
    versions: Annotated[tuple[NumberedVersion, ...], Field(max_length=MOST_VERSIONS)] = ()

    @model_validator(mode="after")
    def _one_way_or_the_other(self) -> Self:
        if (self.text is None) == (not self.versions):
            raise ValueError("needs text (its first version) or versions (all of them)")
        if [row.version for row in self.versions] != list(range(1, len(self.versions) + 1)):
            raise ValueError("versions are numbered 1, 2, 3, … in order, none left out")
        return self

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        """(text, note) of every version, the first one first."""
        if self.text is not None:
            return ((self.text, self.note),)
        return tuple((row.text, row.note) for row in self.versions)


class PromptPatch(Spec):
    """Changes to a prompt: absent fields stay; a text that is another than the newest makes a version."""

    read_only = frozenset({"id", "version", "created_at", "updated_at"})

    name: Name | None = None
    description: Description | None = None
    text: PromptText | None = None
    note: Reason = ""

"""What every block of settings has in common, and how a setting is added without changing ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """Base of every block of settings: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        """-0.0 is 0.0, since equal configurations must have equal fingerprints."""
        return value + 0.0 if isinstance(value, float) else value


@dataclass(frozen=True)
class AddedLater:
    """Marks a field that trials were stored without: `Annotated[float, …, AddedLater(0.0)]`.

    Attributes
    ----------
    before: the value with which a trial's result is what it was before there was the field. Ids
        and stored spaces leave the field out while it has it; so it never changes, whatever
        becomes of the field's default.
    """

    before: object


def is_as_before(field: FieldInfo, value: object) -> bool:
    """Whether the field was added later and the value reproduces what was before."""
    marks = [mark for mark in field.metadata if isinstance(mark, AddedLater)]
    return any(_plain(value) == _plain(mark.before) for mark in marks)


def _plain(value: object) -> object:
    """A block as a search space writes it: a mapping of what was not there from the first."""
    return without_later(value) if isinstance(value, BaseModel) else value


def without_later(section: BaseModel) -> dict[str, Any]:
    """The section as plain values, without the fields that are as they were before they existed."""
    plain = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if not is_as_before(field, value):
            plain[name] = without_later(value) if isinstance(value, BaseModel) else value
    return plain

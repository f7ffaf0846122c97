"""The options of a command, made of the fields of its settings: each is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cos_interp.analyses.driver.command import as_text, explain, flag, reader
from cos_interp.interp.terminal import Failure

Settings = TypeVar("Settings", bound=BaseModel)


def option(name: str, field: FieldInfo) -> inspect.Parameter:
    """The command-line option of one setting; required where the setting is."""
    text = reader(field.annotation) is not None
    default = as_text(field.default) or None if text and field.default is not None else field.default
    plain: Any = next((t for t in (bool, int, float) if field.annotation in (t, t | None)), str)
    kind: Any = plain | None if text or field.default is None else plain
    flags = [f"{flag(name)}/--no-{flag(name)[2:]}"] if plain is bool else [flag(name)]
    said = Annotated[kind, typer.Option(*flags, help=field.description)]
    if field.is_required():
        default = inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=said)


def _option(settings: type[BaseModel], name: str, field: FieldInfo) -> inspect.Parameter:
    """One that the model's pipeline decides where nothing is said has no default here: it is not said."""
    if name not in getattr(settings, "OWN", ()):
        return option(name, field)
    said = f"{field.description} The model's own by default; {field.default} with the organism."
    open_ended = FieldInfo.merge_field_infos(field, annotation=field.annotation, default=None, description=said)
    return option(name, open_ended)


def configured(settings: type[Settings], given: Mapping[str, Any]) -> Settings:
    """The settings from the options of a command; Failure names the option that does not fit."""
    from pydantic import ValidationError

    values = {}
    for name, field in settings.model_fields.items():
        value, read = given[name], reader(field.annotation)
        if value is None:  # not said
            continue
        try:
            values[name] = read(value) if read else value
        except ValueError as error:
            raise Failure(f"{flag(name)} {error}") from None
    try:
        return settings(**values)
    except ValidationError as error:
        raise Failure("; ".join(explain(e) for e in error.errors())) from error


def with_options(command: Callable[..., None], settings: type[BaseModel], further: Mapping[str, Any], help: str) -> None:
    """Give a command the options of its settings and further ones, name -> (type, default, typer's option), and its help.

    A default of ``...`` makes an option required.
    """
    keyword, none = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    own = [_option(settings, name, field) for name, field in settings.model_fields.items()]
    added = [
        inspect.Parameter(name, keyword, default=none if default is ... else default, annotation=Annotated[kind, said])
        for name, (kind, default, said) in further.items()
    ]
    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]  # typer reads it
    command.__doc__ = help

"""The operator's words about alerts: who is told of trouble, and how often. The table ``[alerts]``.

Readers of single fields; what they return is right, whoever wrote it. Where alerts go is the
operator's word alone: no plugin, bundle or signer has a say in it.
"""

from __future__ import annotations

from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sandbox_host.reading import BadValueError, expected, parse_seconds

MAX_URL_LENGTH: Final = 2_000
MAX_COMMAND_WORDS: Final = 64
MAX_WORD_LENGTH: Final = 4_096


def _read_webhook(value: object) -> object:
    """Read a URL; what is wrong with one is told without it, for many have a secret in them."""
    field = "alerts.webhook"
    if value is None:
        return None
    if not isinstance(value, str):
        raise expected(field, "a URL", value)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise BadValueError(field, "has characters that no URL has")
    if len(value) > MAX_URL_LENGTH:
        raise BadValueError(field, f"is longer than {MAX_URL_LENGTH} characters")
    if not _is_usable(value):
        what = 'expected a URL such as "https://example.org/alerts"'
        raise BadValueError(field, f"{what}, without user, password and fragment")
    return value


def _is_usable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return whole and "#" not in url and "@" not in parts.netloc


def _read_command(value: object) -> object:
    field = "alerts.command"
    if not isinstance(value, list | tuple):
        raise expected(field, "a list of words", value)
    if len(value) > MAX_COMMAND_WORDS:
        raise BadValueError(field, f"has more than {MAX_COMMAND_WORDS} words")
    for word in value:
        if not isinstance(word, str) or "\0" in word or len(word) > MAX_WORD_LENGTH:
            raise expected(field, f"words of at most {MAX_WORD_LENGTH} characters", word)
    if value and not value[0].startswith("/"):
        what = "the program's whole path first, as no directory is searched for it"
        raise expected(field, what, value[0])
    return tuple(value)


def _seconds(field: str) -> BeforeValidator:
    return BeforeValidator(lambda value: parse_seconds(value, f"alerts.{field}"))


class AlertSettings(BaseModel):
    """Who is told of trouble. Every sink that is set gets every alert; none waits for another.

    Attributes:
        log: the host's log, as `logging` has it.
        journal: a line ``alert`` each. Off, because what is told of is a line there already.
        event: an event ``error_occurred`` each, for subscribers.
        webhook: a URL, http or https, that gets a POST with a JSON object each; None for none.
        command: a program, by its whole path, and its arguments; it is run for each alert, without
            a shell, and gets the same object on its standard input. Empty for none.
        timeout_seconds: for one POST, or one run of the command, which is killed then.
        pause_seconds: two messages of one alert are at least so far apart.
        repeat_seconds: trouble that lasts is told again after this; at least the pause.

    As a part of `HostConfig`, whatever is unknown, of a wrong type or out of range is a
    `ConfigError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    log: bool = True
    journal: bool = False
    event: bool = True
    webhook: Annotated[str | None, BeforeValidator(_read_webhook)] = None
    command: Annotated[tuple[str, ...], BeforeValidator(_read_command)] = ()
    timeout_seconds: Annotated[float, _seconds("timeout_seconds")] = Field(
        default=10.0, gt=0, le=60
    )
    pause_seconds: Annotated[float, _seconds("pause_seconds")] = Field(
        default=60.0, ge=0, le=86_400
    )
    repeat_seconds: Annotated[float, _seconds("repeat_seconds")] = Field(
        default=3_600.0, ge=0.1, le=30 * 86_400
    )

    @model_validator(mode="after")
    def _pause_is_the_shorter(self) -> Self:
        if self.repeat_seconds < self.pause_seconds:
            raise BadValueError("alerts.repeat_seconds", "is less than alerts.pause_seconds")
        return self

"""Which plugins the operator has disabled: one small file in the state directory.

A plugin's directory is signed, so that a switch cannot be in it. A change is made under a lock and
replaces the file in one step. A file that cannot be read is an error, and never "all enabled".
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from sandbox_host.errors import ConfigError, PluginDisabledError, UsageError
from sandbox_host.model import MIB, plugin_of
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    expected,
    quoted,
    read_match,
    read_object,
    read_whole,
)
from sandbox_host.replacing import replacing

SWITCHES_NAME: Final = "disabled.json"
LOCK_NAME: Final = "disabled.lock"
LOCK_SECONDS: Final = 10.0
MAX_FILE_BYTES: Final = MIB
MAX_DISABLED: Final = 10_000
"""Plugins that may be disabled at a time: as many as a plugin directory may hold."""

_SCHEMA: Final = 1
_IDENTITY: Final = re.compile(r"[a-z][a-z0-9_]{0,127}")
_TIME: Final = re.compile(r"[0-9TZ:+.-]{20,40}")
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PAUSE_SECONDS: Final = 0.005


class Switches:
    """The plugins that are disabled in one state directory.

    Args:
        state_dir: the hosts'; made, with mode 0700, when something is written.
    """

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / SWITCHES_NAME
        self._state_dir = state_dir

    def disabled(self) -> dict[str, datetime]:
        """Return since when which plugins are disabled, by identity.

        Raises:
            ConfigError: the file cannot be read, is not the host's own, or is damaged.
        """
        try:
            descriptor = os.open(self.path, _READ)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._refuse(f"cannot be opened: {error.strerror or error}")
        with os.fdopen(descriptor, "rb") as file:
            self._check(os.fstat(descriptor))
            data = file.read(MAX_FILE_BYTES + 1)
        try:
            return _parse(data)
        except BadValueError as error:
            self._refuse(f"is not as it was written: {error}")

    def disable(self, identity: str, now: datetime) -> bool:
        """Disable a plugin; return whether it was not disabled already.

        Raises:
            ConfigError: as `disabled`; or it cannot be written, or is kept locked.
            UsageError: that is no plugin's identity.
        """
        _check_whole(identity)
        with self._changing() as disabled:
            if identity in disabled:
                return False
            disabled[identity] = now
            if len(disabled) > MAX_DISABLED:
                self._refuse(f"holds {MAX_DISABLED} plugins already")
            return True

    def enable(self, identity: str) -> bool:
        """Enable a plugin; return whether it was disabled here.

        Raises:
            ConfigError, UsageError: as `disable`.
        """
        _check_whole(identity)
        with self._changing() as disabled:
            return disabled.pop(identity, None) is not None

    def check(self, identity: str) -> None:
        """Refuse a plugin that is disabled here, whoever wants to load it.

        Raises:
            PluginDisabledError: it is.
            ConfigError: as `disabled`.
        """
        since = self.disabled().get(identity)
        if since is not None:
            raise PluginDisabledError(
                f"Plugin {identity} is disabled: its operator ran `sandbox-host disable` at "
                f"{since:%Y-%m-%d %H:%M} UTC.",
                remedy=f"To let it run again: `sandbox-host enable {identity}`.",
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, datetime]]:
        try:
            self._state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            parent = os.open(self._state_dir, _DIRECTORY)
        except OSError as error:
            self._refuse(f"cannot be written: {error.strerror or error}")
        try:
            self._check_directory(os.fstat(parent))
            with self._locked(parent):
                disabled = self.disabled()
                before = dict(disabled)
                yield disabled
                if disabled != before:
                    with replacing(parent, SWITCHES_NAME, 0o600) as file:
                        file.write(_render(disabled))
                    os.fsync(parent)
        except OSError as error:
            self._refuse(f"cannot be written: {error.strerror or error}")
        finally:
            os.close(parent)

    @contextlib.contextmanager
    def _locked(self, parent: int) -> Iterator[None]:
        descriptor = os.open(LOCK_NAME, _LOCK, 0o600, dir_fd=parent)
        try:
            until = time.monotonic() + LOCK_SECONDS
            while True:
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if time.monotonic() > until:
                    self._refuse("is locked by another process, which keeps it")
                time.sleep(_PAUSE_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _check_directory(self, status: os.stat_result) -> None:
        if status.st_uid not in {os.geteuid(), 0} or status.st_mode & 0o022:
            self._refuse("is in a directory of somebody else's, or one that others can write")

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {os.geteuid(), 0}:
            self._refuse("is no regular file of the host's own user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._refuse("can be written by its group or by others")

    def _refuse(self, why: str) -> NoReturn:
        raise ConfigError(
            f"What was disabled is not known: {self.path} {why}.",
            remedy="Mend it, or put back the one of your last backup; or remove it: then nothing "
            "is disabled but by configuration, and `sandbox-host disable NAME` disables again.",
        )


def _check_whole(identity: str) -> None:
    plugin, instance = plugin_of(identity)
    if instance:
        text = f"{quoted(identity)} is an instance; a plugin is disabled with all of them."
        raise UsageError(text, remedy=f"Name the plugin ({plugin}), or unload the instance.")
    if not _IDENTITY.fullmatch(identity):
        text = f"{quoted(identity)} is no plugin's name."
        raise UsageError(text, remedy="`sandbox-host list` shows those that there are.")


def _parse(data: bytes) -> dict[str, datetime]:
    if len(data) > MAX_FILE_BYTES:
        raise BadValueError("", f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise BadValueError("", "it is not JSON") from None
    keys = ("schema", "disabled")
    table = read_object(document, "")
    check_keys(table, "", keys, keys)
    read_whole(table["schema"], "schema", _SCHEMA, _SCHEMA)
    entries = read_object(table["disabled"], "disabled")
    if len(entries) > MAX_DISABLED:
        raise BadValueError("disabled", f"expected at most {MAX_DISABLED} plugins")
    return {_identity(name): _time(value, at("disabled", name)) for name, value in entries.items()}


def _identity(name: str) -> str:
    return read_match(name, "disabled", _IDENTITY, "a plugin's identity")


def _time(value: object, path: str) -> datetime:
    text = read_match(value, path, _TIME, "a time")
    with contextlib.suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    raise expected(path, "a time with its zone", value)


def _render(disabled: Mapping[str, datetime]) -> bytes:
    entries = {
        name: disabled[name].astimezone(UTC).isoformat(timespec="seconds")
        for name in sorted(disabled)
    }
    return json.dumps({"schema": _SCHEMA, "disabled": entries}, indent=2).encode() + b"\n"

"""Exit codes, which scripts tell apart, and which error leads to which: a table."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from sandbox_host.errors import (
    AttestationError,
    ConfigError,
    ConfinementError,
    ControlError,
    HistoryError,
    JournalError,
    RecordingError,
    RemoteError,
    RollbackError,
    SandboxHostError,
    TrustStoreError,
    UnsignedError,
    UntrustedError,
    UsageError,
)


class Exit(enum.IntEnum):
    """How a command ended."""

    OK = 0
    REFUSED = 1
    """Tampered with, malformed, not admitted; or a plugin failed while it ran."""
    USAGE = 2
    UNSIGNED = 3
    UNTRUSTED = 4
    ROLLBACK = 5
    """Older than a version seen before, or another with the same version; or the clock is."""
    ENVIRONMENT = 6
    """The trust store, a key file, the configuration or this machine cannot be used."""
    INTERNAL = 7
    INTERRUPTED = 130
    """By Ctrl-C, as a shell says it: 128 and the number of SIGINT."""
    BROKEN_PIPE = 141
    """Whoever read standard output left: 128 and the number of SIGPIPE."""


_BY_ERROR: Final[tuple[tuple[type[SandboxHostError], Exit], ...]] = (
    (UnsignedError, Exit.UNSIGNED),
    (UntrustedError, Exit.UNTRUSTED),
    (RollbackError, Exit.ROLLBACK),
    (UsageError, Exit.USAGE),
    (TrustStoreError, Exit.ENVIRONMENT),
    (ConfigError, Exit.ENVIRONMENT),
    (ConfinementError, Exit.ENVIRONMENT),
    (ControlError, Exit.ENVIRONMENT),
    (AttestationError, Exit.ENVIRONMENT),
    (JournalError, Exit.ENVIRONMENT),
    (HistoryError, Exit.ENVIRONMENT),
    (RecordingError, Exit.ENVIRONMENT),
    (SandboxHostError, Exit.REFUSED),
)

# What somebody did on purpose weighs more than what somebody forgot.
_BY_WEIGHT: Final = (Exit.OK, Exit.UNSIGNED, Exit.UNTRUSTED, Exit.ROLLBACK, Exit.REFUSED)


def exit_for(error: SandboxHostError) -> Exit:
    """Return the exit code for an error of the host's."""
    if isinstance(error, RemoteError):  # it was decided where the error was raised
        return Exit(error.exit_code) if error.exit_code in set(Exit) else Exit.REFUSED
    return next(code for kind, code in _BY_ERROR if isinstance(error, kind))


def worst(codes: Iterable[Exit]) -> Exit:
    """Return the gravest of several plugins' exit codes: 1 before 5, 4, 3 and 0."""
    return max(codes, key=_BY_WEIGHT.index, default=Exit.OK)

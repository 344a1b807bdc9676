"""Has strangers' sources read: in a process that is confined like a plugin, with nothing granted.

It is a plugin, signed with a throw-away key and started by the one way there is. Each plugin that
is scanned gets a process of its own, so that one that takes the reader over says nothing of the
next; and a source that the reader dies of is a finding, and costs the others nothing but time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from sandbox_host.errors import BudgetExceededError, PluginError
from sandbox_host.model import Permissions, State
from sandbox_host.reading import escaped
from sandbox_host.runtime.blocking import BlockingPlugin
from sandbox_host.runtime.throwaway import ThrowawayHost
from sandbox_host.scan.internal import LIMITS, OPERATION, examiner
from sandbox_host.scan.scan import is_source, scan
from sandbox_host.scan.sightings import BadSightingError, Sighting, read_sightings

if TYPE_CHECKING:
    from types import TracebackType

    from sandbox_host.backends.base import Backend
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.config import HostConfig
    from sandbox_host.runtime.process import PluginProcess
    from sandbox_host.scan.finding import Finding

T = TypeVar("T")

MAX_DEATHS: Final = 5
"""Of the reader, for one plugin; whoever brings that many such sources has said enough."""

MAX_TOLD: Final = 20_000
"""Of one plugin; what comes after the source that brings more is not read. Each takes the host half
a kilobyte, and a hundred bytes of source are enough for four."""

MAX_SECONDS: Final = 300.0
"""For all sources of one plugin; the largest that there can be takes a third of it."""

_DYING_SECONDS: Final = 5.0
_MAX_REASON: Final = 120

Read = Callable[[Any, str, bytes], tuple[T, ...]]
"""Checks what a reader says of one file; raises `BadSightingError`."""


class ConfinedReader(Generic[T]):
    """Reads sources in the sandbox, for as long as it is entered.

    Args:
        config: the operator's, for the interpreter and the decisions on confinement.
        make: returns the reading plugin, by its name.
        read: checks what it says.
        failed: makes what is said of a file that was not read, from path, rule and reason.
        extra: fields of the configuration that are others for it.
        backend: another than this system's, for the host's own tests.
    """

    def __init__(
        self,
        config: HostConfig,
        make: Callable[[str], Contents],
        read: Read[T],
        failed: Callable[[str, str, str], T],
        *,
        extra: Mapping[str, Any] | None = None,
        backend: Backend | None = None,
    ) -> None:
        decided = {
            "ceilings": LIMITS,
            "grants": {},
            "signer_grants": {},
            "plugin_config": {},
            "plugin_environment": None,
            "refuse_findings": "none",
            **(extra or {}),
        }
        self._config = config.model_copy(update=decided)
        self._make = make
        self._read = read
        self._failed = failed
        self._backend = backend
        self._stack = ExitStack()
        self._host: ThrowawayHost | None = None
        self._process: PluginProcess | None = None
        self._loads = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._host = None
        self._stack.close()

    def __call__(self, sources: Mapping[str, bytes]) -> Iterator[T]:
        """Yield what there is to say of the sources of one plugin, in their order.

        The first source starts the host; where there is none, none is started.

        Raises:
            SandboxHostError: this machine cannot confine the process, or not start it.
        """
        deaths, told, until = 0, 0, time.monotonic() + MAX_SECONDS
        try:
            for path, data in sources.items():
                if deaths >= MAX_DEATHS:
                    yield self._failed(path, "SH410", "too many sources before it ended the scan")
                elif told > MAX_TOLD:
                    yield self._failed(path, "SH410", "too much was found before it")
                elif time.monotonic() > until:
                    yield self._failed(path, "SH410", "the sources before it took too long")
                else:
                    reader = self._ready()
                    try:
                        found = self._read(reader.call(OPERATION, data), path, data)
                        told += len(found)
                        yield from found
                    except (PluginError, BadSightingError) as error:
                        deaths += 1
                        self._end()
                        yield self._failed(path, "SH407", _reason(error))
        finally:
            self._end()

    def _ready(self) -> BlockingPlugin:
        """Return the process that reads, started if there is none: no fault of a source's."""
        process = self._process
        if process is None or process.state is not State.READY:
            process = self._process = self._started()
        return BlockingPlugin(process)

    def _started(self) -> PluginProcess:
        if self._host is None:
            self._host = self._stack.enter_context(
                ThrowawayHost(self._config, backend=self._backend)
            )
        self._loads += 1
        # Another name each time: nothing has to wait until the last one is gone.
        return self._host.load_contents(self._make(f"source_reader_{self._loads}"))

    def _end(self) -> None:
        """End the process that has read; the next sources get another."""
        process, self._process = self._process, None
        if process is None or self._host is None:
            return
        if process.state is State.READY:
            self._host.unload(process)
        process.ended.wait(_DYING_SECONDS)


def _reason(error: PluginError | BadSightingError) -> str:
    """Return why a source could not be read; the same for the same source."""
    if isinstance(error, BudgetExceededError):
        return f"it needs too much {error.budget}"
    if isinstance(error, PluginError):
        return escaped(getattr(error, "type_name", "") or error.code, _MAX_REASON)
    return "it says nothing that can be understood"


def source_reader(
    config: HostConfig, *, backend: Backend | None = None
) -> ConfinedReader[Sighting]:
    """Return a reader that looks for what `sandbox_host.scan.rules` has."""
    return ConfinedReader(config, examiner, read_sightings, _unread, backend=backend)


def _unread(path: str, rule: str, reason: str) -> Sighting:
    return Sighting(path, 1, 1, rule, reason)


def scan_files(
    files: Mapping[str, bytes],
    permissions: Permissions,
    config: HostConfig,
    *,
    backend: Backend | None = None,
) -> tuple[Finding, ...]:
    """Scan one plugin; see `sandbox_host.scan.scan.scan`.

    Raises:
        SandboxHostError: this machine cannot confine the process that reads the sources.
    """
    if not any(map(is_source, files)):
        return scan(files, permissions, lambda _: ())
    with source_reader(config, backend=backend) as reader:
        return scan(files, permissions, reader)

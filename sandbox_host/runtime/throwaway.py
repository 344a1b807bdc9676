"""Runs plugins that are not released yet, by the one way there is: signed, verified, confined.

Authors check and test what they have not signed. There is no second path around the signature for
them: a copy of their directory is signed with a key that exists for a moment and is trusted by a
store that exists for as long, both in a private temporary directory. Neither the plugin's own
directory nor the user's trust store and state are touched.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from sandbox_host.bundle.keys import generate_key
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.source import read_bundle
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.trust_edit import add_key
from sandbox_host.config import TRUST_STORE_NAME, HostConfig
from sandbox_host.model import Cause, State
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.runtime.answers import clean
from sandbox_host.runtime.core import HostCore
from sandbox_host.runtime.observed import Observed, observed_in
from sandbox_host.runtime.workspace import remove_tree

if TYPE_CHECKING:
    from types import TracebackType

    from sandbox_host.admission.instances import Instance
    from sandbox_host.backends.base import Backend
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.model import Denial
    from sandbox_host.runtime.asked import Asked
    from sandbox_host.runtime.process import PluginProcess

T = TypeVar("T")

_MAX_PROBLEM_LENGTH = 500
_NOBODY = AlertSettings(log=False, event=False)
_LEAVING_SECONDS = 3.0
_PAUSE_SECONDS = 0.02
_MAX_KEPT = 500
_MOST_UIDS = 64


class TrialHost(HostCore):
    """A host that keeps what the plugins in it do unasked, for who tries them.

    Attributes:
        published_types: event types, by the identity of who published them.
        services: names of those that it asked for, by identity.
        connections: where it connected to, as ``host:port``, by identity.
        denials: what was refused by the host, in a sentence, by identity.
        reports: what a plugin says that it was refused, by identity.
    """

    def __init__(self, config: HostConfig, backend: Backend | None, *, trial: bool) -> None:
        super().__init__(config, backend, trial=trial)
        self.published_types: dict[str, set[str]] = defaultdict(set)
        self.services: dict[str, list[str]] = defaultdict(list)
        self.connections: dict[str, list[str]] = defaultdict(list)
        self.denials: dict[str, list[str]] = defaultdict(list)
        self.reports: dict[str, list[Denial]] = defaultdict(list)

    def published(self, process: PluginProcess, event_type: str, payload: bytes) -> None:
        """Hand it out, and remember its type."""
        types = self.published_types[process.identity]
        if len(types) < _MAX_KEPT:
            types.add(event_type)
        super().published(process, event_type, payload)

    def asked(self, process: PluginProcess, asked: Asked) -> None:
        """Do it, and remember which."""
        _keep(self.services[process.identity], asked.service)
        super().asked(process, asked)

    def connected(self, process: PluginProcess, where: str) -> None:
        """Write it down, and remember it."""
        _keep(self.connections[process.identity], where)
        super().connected(process, where)

    def denied(self, process: PluginProcess, what: str) -> None:
        """Write it down, and remember it."""
        _keep(self.denials[process.identity], what)
        super().denied(process, what)

    def reported(self, process: PluginProcess, denial: Denial) -> None:
        """Write it down, and remember it."""
        _keep(self.reports[process.identity], denial)
        super().reported(process, denial)


def _apart(uids: tuple[int, int]) -> tuple[int, int]:
    """Return ids from the end of a range: each state directory gives them away from its start.

    Else what is tried would have the id of a plugin that runs, perhaps of another one.
    """
    first, count = uids
    own = min(_MOST_UIDS, max(1, count // 2))
    return first + count - own, own


def _keep(kept: list[T], one: T) -> None:
    if one not in kept and len(kept) < _MAX_KEPT:
        kept.append(one)


class ThrowawayHost:
    """A host for copies signed with a throw-away key; leaving it removes all of it.

    Args:
        config: the operator's decisions to try the plugin under: grants, ceilings, the plugin
            environment. Its trust store and state directory are replaced by temporary ones; nobody
        whom it names gets an alert or a line of the journal.
        backend: another than this system's, for the host's own tests.
        observing: have each plugin tell, when it is unloaded, what it used and was refused.

    Attributes:
        core: the host, once it is entered.
        observed: by identity, what the plugins told that were unloaded.
    """

    def __init__(
        self,
        config: HostConfig | None = None,
        *,
        backend: Backend | None = None,
        observing: bool = False,
    ) -> None:
        self._config = config or HostConfig()
        self._backend = backend
        self._observing = observing
        self.observed: dict[str, Observed] = {}
        self._signed = 0

    def __enter__(self) -> Self:
        """Make the key, its trust store and the host.

        Raises:
            ConfinementError: this system has no backend.
            ConfigError: the temporary directory cannot be used.
        """
        self._root: Path | None = None
        try:
            self._root = Path(tempfile.mkdtemp(prefix="sandbox-host-trial-")).resolve()
            self._key = generate_key()
            trust_store = self._root / TRUST_STORE_NAME
            add_key(
                trust_store,
                self._key.public,
                "throw-away key",
                roles=("developer",),
                plugins=("*",),
            )
            config = self._config.model_copy(
                update={
                    "trust_store": trust_store,
                    "state_dir": self._root / "state",
                    # What happens here is no news of a plugin of theirs: its name is the same.
                    "alerts": _NOBODY,
                    "forward_journal": False,
                    "plugin_uids": _apart(self._config.plugin_uids),
                }
            )
            self.core = self._made(config)
            self.core.open()
        except BaseException:
            self._remove()
            raise
        return self

    def _made(self, config: HostConfig) -> TrialHost:
        return TrialHost(config, self._backend, trial=self._observing)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.core.close()
        finally:
            self._remove()

    def _remove(self) -> None:
        """Remove the directory; again, where somebody who is ending still writes to it."""
        until = time.monotonic() + _LEAVING_SECONDS
        while self._root is not None and self._root.exists():
            remove_tree(self._root)
            if time.monotonic() > until:
                return
            time.sleep(_PAUSE_SECONDS)

    def load(self, path: Path) -> PluginProcess:
        """Sign a copy of what the directory or archive `path` holds now, and load that.

        Raises:
            BundleError: it is not a well-formed bundle.
            ManifestError: plugin.json is not acceptable.
            SandboxHostError: whatever `SandboxHost.load` raises.
        """
        return self.load_contents(read_bundle(path))

    def load_contents(self, contents: Contents, instance: Instance | None = None) -> PluginProcess:
        """Do the same with bytes that were read before; an envelope among them is not used.

        Args:
            contents: the bytes.
            instance: which of several it is to be; None for the plugin itself.

        Raises:
            SandboxHostError: as `load`.
        """
        envelope = sign(contents, self._key, datetime.now(UTC))
        self._signed += 1
        assert self._root is not None  # noqa: S101 - it is entered
        copy = self._root / "signed" / str(self._signed)
        stage_source(contents, envelope, copy)
        return self.core.load(copy, instance=instance)

    def unload(self, process: PluginProcess) -> str:
        """Let a plugin clean up and leave.

        Returns:
            What went wrong with its ``cleanup()``, as one line; "" where nothing did, or where it
            has none.
        """
        answer = process.stop(self._config.stop_timeout_seconds, Cause.UNLOADED)
        if answer is None:
            ended = process.cause_text if process.state is State.FAILED else ""
            return ended or f"{process.identity} did not leave within the stop timeout."
        if self._observing:
            observed = observed_in(answer, process.plan.permissions)
            if observed is not None:
                self.observed[process.identity] = observed
        try:
            return _problem(codec.unpack(answer.payload))
        except PayloadError as error:
            return f"its answer to the stop cannot be read: {error}."


def _problem(report: Any) -> str:
    """Return what a `Stopped` payload says of the clean-up, or "" for a clean one."""
    told = report if isinstance(report, dict) else {}
    if told.get("ok") is True:
        return ""
    error = told.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return clean(message, _MAX_PROBLEM_LENGTH) or "cleanup() failed and gave no reason."

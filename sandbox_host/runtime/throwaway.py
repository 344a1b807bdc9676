"""Runs plugins that are not released yet, by the one way there is: signed, verified, confined.

Authors check and test what they have not signed. There is no second path around the signature for
them: a copy of their directory is signed with a key that exists for a moment and is trusted by a
store that exists for as long, both in a private temporary directory. Neither the plugin's own
directory nor the user's trust store and state are touched.
"""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from sandbox_host.bundle.keys import generate_key
from sandbox_host.bundle.reader import read_directory
from sandbox_host.bundle.sign import sign
from sandbox_host.bundle.stage import stage_source
from sandbox_host.bundle.trust_edit import add_key
from sandbox_host.config import TRUST_STORE_NAME, HostConfig
from sandbox_host.model import Cause, State
from sandbox_host.runtime.answers import clean
from sandbox_host.runtime.core import HostCore
from sandbox_host.runtime.workspace import remove_tree

if TYPE_CHECKING:
    from types import TracebackType

    from sandbox_host.backends.base import Backend
    from sandbox_host.bundle.contents import Contents
    from sandbox_host.runtime.process import PluginProcess

_MAX_PROBLEM_LENGTH = 500
_LEAVING_SECONDS = 3.0
_PAUSE_SECONDS = 0.02


class ThrowawayHost:
    """A host for copies signed with a throw-away key; leaving it removes all of it.

    Args:
        config: the operator's decisions to try the plugin under: grants, ceilings, the plugin
            environment. Its trust store and state directory are replaced by temporary ones.
        backend: another than this system's, for the host's own tests.
    """

    def __init__(self, config: HostConfig | None = None, *, backend: Backend | None = None) -> None:
        self._config = config or HostConfig()
        self._backend = backend
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
            add_key(trust_store, self._key.public, "throw-away key", plugins=("*",))
            paths = {"trust_store": trust_store, "state_dir": self._root / "state"}
            self._core = HostCore(self._config.model_copy(update=paths), self._backend)
            self._core.open()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._core.close()
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

    def load(self, directory: Path) -> PluginProcess:
        """Sign a copy of what `directory` holds now, and load that.

        Raises:
            BundleError: the directory is not a well-formed bundle.
            ManifestError: plugin.json is not acceptable.
            SandboxHostError: whatever `SandboxHost.load` raises.
        """
        return self.load_contents(read_directory(directory))

    def load_contents(self, contents: Contents) -> PluginProcess:
        """Do the same with bytes that were read before; an envelope among them is not used.

        Raises:
            SandboxHostError: as `load`.
        """
        envelope = sign(contents, self._key, datetime.now(UTC))
        self._signed += 1
        assert self._root is not None  # noqa: S101 - it is entered
        copy = self._root / "signed" / str(self._signed)
        stage_source(contents, envelope, copy)
        return self._core.load(copy)

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

"""The instances of plugins that are loaded together with others: each by itself, all in one step.

To whoever needs the plugin they are the plugin: it runs as soon as one of them does, and one that
does not start keeps no other from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox_host.backends.worker import each
from sandbox_host.errors import SandboxHostError

if TYPE_CHECKING:
    from sandbox_host.admission.instances import Instance
    from sandbox_host.model import Manifest
    from sandbox_host.runtime.process import PluginProcess

    Wanted = Callable[[str], Mapping[str, Instance | None]]
    Load = Callable[[Path, Instance | None], PluginProcess]
    Heed = Callable[[Path, str, PluginProcess | SandboxHostError], object]

_AT_A_TIME: Final = 8


class Members:
    """See the module.

    Args:
        wanted: returns for a plugin what is to run of it, by identity.
        heed: is told of each that was or was not started, but for the first one that was, and
            where none was, the first one; from several threads.
        check: says no to one that was started, by an error, and puts it away.
    """

    def __init__(self, wanted: Wanted, heed: Heed, check: Callable[[PluginProcess], None]) -> None:
        self._wanted = wanted
        self._heed = heed
        self._check = check
        self._plugins: dict[Path, str] = {}

    def read(self, path: Path, manifest: Manifest) -> Manifest:
        """Take note of the plugin that lies there."""
        self._plugins[path] = manifest.identity
        return manifest

    def load(self, load: Load, path: Path) -> PluginProcess:
        """Load what is to run of the plugin that lies there, and return the first that does.

        Args:
            load: loads one.
            path: which was read.

        Raises:
            SandboxHostError: the first one's, where none could be loaded.
        """
        wanted = self._wanted(self._plugins[path])
        outcomes: dict[str, PluginProcess | SandboxHostError] = {}
        faults: list[BaseException] = []

        def load_one(identity: str) -> None:
            try:
                process = load(path, wanted[identity])
                self._check(process)
                outcomes[identity] = process
            except SandboxHostError as error:
                outcomes[identity] = error
            except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                faults.append(error)

        each(load_one, list(wanted), _AT_A_TIME)
        if faults:
            raise faults[0]
        ordered = [(identity, outcomes[identity]) for identity in wanted]
        runs = [one for one in ordered if not isinstance(one[1], SandboxHostError)]
        first = (runs or ordered)[0]
        for identity, outcome in ordered:
            if identity != first[0]:
                self._heed(path, identity, outcome)
        if isinstance(first[1], SandboxHostError):
            raise first[1]
        return first[1]

"""A host as a service: commands over its socket, a watched plugin directory, a supervisor's word.

    with ServicePlace(config.state_dir) as place, Service(place, ...) as service:
        with ServedHost(config) as host:
            service.attend(host)
            ...                       # load what is to run
            service.begin()           # from now on the plugin directory is watched: ready
            while not service.ending.is_set():
                service.look()        # again and again: signs of life, what was asked for
            service.stopping()

The socket is there from the first moment, so that `status` says how far the start is, and until
everything is put away, so that whoever asked for the end is told of it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

from sandbox_host.catalog.judging import Judging
from sandbox_host.catalog.watch import PluginWatch
from sandbox_host.errors import ControlError, SandboxHostError
from sandbox_host.runtime.lifecycle import ENDED
from sandbox_host.service.declared import Declared
from sandbox_host.service.notify import Notifier
from sandbox_host.service.operations import Operations
from sandbox_host.service.server import ControlServer
from sandbox_host.service.settings import reconfiguration
from sandbox_host.service.steward import Steward

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox_host.config import HostConfig
    from sandbox_host.service.hosting import ServedHost
    from sandbox_host.service.place import ServicePlace
    from sandbox_host.supervision.restart import RestartPolicy

_log = logging.getLogger("sandbox_host")

KEEPER_SECONDS: Final = 5.0
"""A watchdog of plugins that did not look at them for so long does not work; it looks 20 times a
second, and the machine may be busy."""

STOP_MARGIN_SECONDS: Final = 10.0
"""What is added to start and stop timeout for putting everything away."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How a service is to be run.

    Attributes:
        read_config: reads the configuration again.
        exit_code: what a command ends with for an error.
        tell: is told what happens, in a line for people each.
        restart: for what is loaded; None for no restarts.
        watched: act on what happens in the plugin directory, where the configuration wants that.
        give_up: called when the end takes longer than it may.
    """

    read_config: Callable[[], HostConfig]
    exit_code: Callable[[SandboxHostError], int]
    tell: Callable[[str], object]
    restart: RestartPolicy | None = None
    watched: bool = False
    give_up: Callable[[], object] = lambda: os._exit(1)


class Service:
    """See the module.

    Args:
        place: which this process has.
        orders: how it is to be run.
        version: the package's.
        notifier: tells the supervisor.
    """

    def __init__(
        self,
        place: ServicePlace,
        orders: Orders,
        version: str = "",
        notifier: Notifier | None = None,
    ) -> None:
        self.ending = threading.Event()
        self.ended = threading.Event()
        self.orders = orders
        self.host: ServedHost | None = None
        self.steward: Steward | None = None
        self.phase = "starting"
        self._place = place
        self._version = version
        self._watch: PluginWatch | None = None
        self._started = datetime.now(UTC)
        self._began = time.monotonic()
        self._changing = threading.RLock()
        self._notifier = notifier or Notifier()
        self._server: ControlServer | None = None

    def __enter__(self) -> Self:
        self._server = ControlServer(self._place.listen(), Operations(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._rest()  # where something failed before it was stopping
        self.ended.set()
        if self._server is not None:
            self._server.close()
        self._notifier.close()

    # -- its life ---------------------------------------------------------------------------

    def attend(self, host: ServedHost) -> None:
        """Answer for this host, which is open."""
        self.host = host
        declared = Declared(host.config)
        self.steward = Steward(host, self.orders.restart, self.orders.tell, declared)

    def begin(self) -> None:
        """Watch the plugin directory, and be ready."""
        with self._changing:
            self._begin_watch(load=False)
            self.phase = "running"
        self._notifier.ready(self._summary())

    def look(self) -> None:
        """Give the supervisor signs of life, as long as there is life; for the main thread."""
        now = time.monotonic()
        if self._notifier.sign_is_due(now) and self.running.works(KEEPER_SECONDS):
            self._notifier.alive(now)
        self._notifier.status(self._summary())
        if self.steward is not None:
            self.steward.tend()

    def stopping(self) -> None:
        """Begin nothing any more; from here to the end of the process there is one deadline."""
        config = self.running.config
        seconds = config.start_timeout_seconds + config.stop_timeout_seconds + STOP_MARGIN_SECONDS
        self.phase = "draining"
        self.ending.set()
        self._notifier.stopping(seconds, "unloading")
        late = threading.Timer(seconds, self._late, (seconds,))
        late.daemon = True
        late.start()
        self._rest()

    def _rest(self) -> None:
        with self._changing:
            if self._watch is not None:
                self._watch.close()
            if self.steward is not None:
                self.steward.close()

    def _late(self, seconds: float) -> None:
        # The kernel ends the plugins with this process; the next host removes what it leaves.
        self.orders.tell(f"the service has not ended within {seconds:g} s: it is ended as it is.")
        self.orders.give_up()

    # -- what it is asked -------------------------------------------------------------------

    @property
    def running(self) -> ServedHost:
        """The host.

        Raises:
            ControlError: it is not open yet.
        """
        if self.host is None:
            text = "The service is starting, and has no host yet."
            raise ControlError(text, remedy="Ask again in a moment.")
        return self.host

    def accepting(self) -> ServedHost:
        """Return the host, where it still takes something new.

        Raises:
            ControlError: the service is starting or ending.
        """
        if self.ending.is_set():
            text = "The service is ending, and begins nothing any more."
            raise ControlError(text, remedy="Ask the next one.")
        return self.running

    @property
    def watch(self) -> PluginWatch | None:
        """The watch over the plugin directory, if there is one."""
        return self._watch

    def hurry(self) -> None:
        """Have the plugin directory, and what is disabled, looked at as soon as may be."""
        if self._watch is not None:
            self._watch.hurry()

    def reconfigure(self) -> str:
        """Read the configuration again; return what that changed, in a line.

        Raises:
            SandboxHostError: it cannot be used; all stays as it was.
        """
        with self._changing:
            host = self.accepting()
            self._notifier.reloading()
            try:
                outcome = reconfiguration(host.config, self.orders.read_config())
                declared = Declared(outcome.config)
                host.reconfigure(outcome.config)
                if self.steward is not None:
                    self.steward.declare(declared)
                if outcome.changed:
                    self._renew_watch(load=outcome.config.load_on_startup)
            finally:
                self._notifier.ready()
        return str(outcome)

    def _begin_watch(self, *, load: bool) -> None:
        config = self.running.config
        directory = config.plugin_directory
        steward = self.steward
        assert steward is not None  # noqa: S101 - with the host
        if not self.orders.watched or directory is None or not config.auto_discovery:
            steward.look_again()
            return
        self._watch = PluginWatch(directory, Judging(config))
        steward.take_first(self._watch.look(), load=load)
        steward.settle(self._watch.present.values())
        self._watch.start(steward.take)

    def _renew_watch(self, *, load: bool) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self.steward is not None:
            self.steward.retry()
        self._begin_watch(load=load)

    def facts(self) -> dict[str, Any]:
        """Return what `status` says of the service itself."""
        config = self.host.config if self.host is not None else None
        directory = config.plugin_directory if config is not None else None
        watch = self._watch
        return {
            "pid": os.getpid(),
            "version": self._version,
            "phase": self.phase,
            "started": self._started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "watchdog": self.host is not None and self.host.works(KEEPER_SECONDS),
            "plugin_directory": str(directory) if directory is not None else None,
            "watching": "no" if watch is None else "scans" if watch.polling else "notices",
            "restarts": self.orders.restart is not None,
            "clients": self._server.clients if self._server is not None else 0,
        }

    def _summary(self) -> str:
        plugins = list(self.running.plugins.values())
        serving = sum(1 for plugin in plugins if plugin.state not in ENDED)
        return f"{serving} of {len(plugins)} plugins running"

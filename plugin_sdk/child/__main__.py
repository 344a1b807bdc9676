"""The start of a plugin's process, as numbered steps. Nothing of the plugin is touched before 4."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys

from plugin_sdk.child.io import ChildChannel, flush_output
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError, RemoteProtocolError
from plugin_sdk.wire.messages import Confine, Confined, Failed, Load, Publish, Ready
from plugin_sdk.wire.versions import NO_COMMON_VERSION, OURS, common_version, mismatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn

    from plugin_sdk.child.confine import ConfineError
    from plugin_sdk.child.faults import Faults
    from plugin_sdk.child.loader import LoadedPlugin, LoadOrder
    from plugin_sdk.child.record import Recorder
    from plugin_sdk.wire.arena import Arena
else:
    import _signal as signal  # the half in C: the other half imports enum, which is slow

# Exit statuses. The host goes by the messages; these are for who looks at the process alone.
EXIT_OK = 0
EXIT_INTERNAL = 70  # also: not confined
EXIT_HOST_BROKE_PROTOCOL = 71
EXIT_NOT_LOADED = 73
EXIT_OUT_OF_MEMORY = 74


def main(
    in_fd: int,
    out_fd: int,
    trace_fd: int,
    parent: int,
    arena: Arena | None = None,
    preparation: dict[str, Any] | None = None,
) -> NoReturn:
    """Run one plugin from the lock-down to the end of the process, which the nursery has forked.

    Args:
        in_fd: read end of the pipe from the host.
        out_fd: write end of the pipe to the host.
        trace_fd: write end of the pipe for stack dumps.
        parent: what getppid returned when the process was made.
        arena: memory that is shared with the host, for large payloads.
        preparation: what is done of the lock-down before it is known for which plugin, or None.
    """
    status = EXIT_INTERNAL
    try:
        status = run(in_fd, out_fd, trace_fd, parent, arena, preparation)
    except RemoteProtocolError as error:
        sys.stderr.write(f"ERROR the host broke the protocol: {error}\n")
        status = EXIT_HOST_BROKE_PROTOCOL
    except BrokenPipeError:
        status = EXIT_OK  # the host is gone, and reads no reason any more
    except MemoryError:
        # Between two operations: the plugin keeps what it allocated, so nothing can go on.
        status = EXIT_OUT_OF_MEMORY
    except BaseException:  # noqa: BLE001 - a fault of ours; its traceback is for the log
        sys.excepthook(*sys.exc_info())
    finally:
        # Not sys.exit: threads and exit handlers of the plugin must not delay the end.
        flush_output()
        os._exit(status)


def run(
    in_fd: int,
    out_fd: int,
    trace_fd: int,
    parent: int,
    arena: Arena | None,
    preparation: dict[str, Any] | None = None,
) -> int:
    """Go through the steps; return the exit status. Arguments as for `main`."""
    # 1. The channel. An interrupt typed at the terminal is for the host, which ends its plugins.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The host's mask is inherited; with it, a deadline or a question for the place would wait.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for descriptor in (in_fd, out_fd, trace_fd):
        os.set_inheritable(descriptor, False)
    channel = ChildChannel(in_fd, out_fd, arena)
    # 2. and 3. Lock down; report what was read back.
    fault = _prepare(preparation, parent) if preparation is not None else None
    if not _confine(channel, parent, fault):
        return EXIT_INTERNAL
    # 4. What to load: the first that this process hears of a plugin.
    message = channel.receive()
    if not isinstance(message, Load):
        return EXIT_OK  # the host changed its mind
    _prepare_interpreter(trace_fd)
    payload = unpack(message.payload)
    if "compile" in payload:
        from plugin_sdk.child.compiler import compile_sources

        compile_sources(channel, payload["package_dir"], payload["compile"])
        return EXIT_OK
    # 5. and 6. Import, initialise, report.
    from plugin_sdk.child.faults import Faults
    from plugin_sdk.child.loader import LoadOrder

    order = LoadOrder(payload)
    channel.allow(order.payload_bytes)
    faults = Faults(order.package_dir, order)
    if order.granted.get("subprocess"):
        from plugin_sdk.child.processes import prepare

        prepare(channel, trace_fd, order.package_dir)
    if order.desk >= 0:
        from plugin_sdk.child.network import install

        install(order.desk)
    elif order.granted.get("unix"):
        from plugin_sdk.child.network import install_for_unix

        install_for_unix()
    recorder = _recorder(order) if order.trial else None
    plugin = _load(channel, order, faults)
    if plugin is None:
        return EXIT_NOT_LOADED
    # 7. Serve.
    _serve(channel, plugin, faults, recorder, order.concurrency)
    return EXIT_OK


def _serve(
    channel: ChildChannel,
    plugin: LoadedPlugin,
    faults: Faults,
    recorder: Recorder | None,
    concurrency: int,
) -> None:
    from plugin_sdk.child.interface import is_async
    from plugin_sdk.child.running import Runner

    functions = [*plugin.interface.operations.values()]
    functions += [one for handlers in plugin.interface.handlers.values() for one in handlers]
    if any(map(is_async, functions)):
        # Now, because a deadline that ended the import of asyncio in a call would leave half of it.
        __import__("plugin_sdk.child.tasks")
    runner = Runner(channel, plugin, faults, recorder)
    if concurrency > 1:
        from plugin_sdk.child.concurrent import ConcurrentLoop

        ConcurrentLoop(channel, runner, faults, concurrency).run()
        return
    from plugin_sdk.child.loop import Loop

    Loop(channel, runner, faults).run()


def _prepare(preparation: dict[str, Any], parent: int) -> ConfineError | None:
    """Do what needs no plan; return what went wrong, which is told once there is one."""
    from plugin_sdk.child.confine import ConfineError, prepare

    try:
        prepare(preparation, parent)
    except ConfineError as error:
        return error
    return None


def _confine(channel: ChildChannel, parent: int, fault: ConfineError | None) -> bool:
    message = channel.receive()
    if not isinstance(message, Confine):
        return False
    host = message.oldest, message.newest
    if common_version(host, OURS) is None:
        told = {"message": mismatch(host, OURS), "versions": list(OURS)}
        channel.send(Failed(NO_COMMON_VERSION, payload=pack(told)))
        return False
    from plugin_sdk.child.confine import ConfineError, apply_plan

    try:
        if fault is not None:
            raise fault
        report = apply_plan(unpack(message.payload), parent)
    except ConfineError as error:
        channel.send(Failed(error.code, payload=pack({"message": str(error)})))
        return False
    channel.send(Confined(*OURS, payload=pack(report)))
    return True


def _prepare_interpreter(trace_fd: int) -> None:
    """Make stacks readable by the host, and let collections happen."""
    # By a pipe of its own, which the host reads to the end: a crash in native code has a place too.
    faulthandler.enable(file=trace_fd)
    _keep_listings()
    gc.enable()  # off in the nursery, where it would copy what its children share
    # What says that a deadline has passed means nothing before there are operations.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if hasattr(faulthandler, "register"):
        # The host asks for the place with this signal before it ends a plugin that has exceeded a
        # budget. The handler is C: it answers even while native code holds the interpreter.
        faulthandler.register(signal.SIGUSR1, file=trace_fd, all_threads=True, chain=False)


def prepare_streams() -> None:
    """Make output visible in the log, once for all children of the calling process."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]  # ours, both


def _keep_listings() -> None:
    """Keep what importlib knows of directories that were listed before the lock-down.

    The standard library's own directory cannot be listed any more where the host's site-packages
    lie in it. importlib takes that for an empty directory and would find nothing ever again.
    """
    for finder in sys.path_importer_cache.values():
        if getattr(finder, "_path_cache", None):
            finder.invalidate_caches = _nothing  # type: ignore[union-attr]


def _nothing() -> None:
    """Take the place of FileFinder.invalidate_caches."""


def _recorder(order: LoadOrder) -> Recorder:
    from plugin_sdk.child.record import Recorder

    recorder = Recorder(order)
    recorder.install()
    return recorder


def _load(channel: ChildChannel, order: LoadOrder, faults: Faults) -> LoadedPlugin | None:
    from plugin_sdk.child.interface import LoadError
    from plugin_sdk.child.loader import load
    from plugin_sdk.child.logging_bridge import entry_sender, install_bridge

    def publish(event_type: str, data: bytes) -> None:
        channel.send(Publish(event_type, payload=data))

    sys.argv[:] = [order.identity]
    log = entry_sender(channel.send)
    install_bridge(log)
    try:
        plugin = load(order, publish, channel.ask, log, channel.progress)
        ready = pack(plugin.ready_payload(arena=order.arena and channel.lend()))
    except LoadError as error:
        failure = (error.code, _details(error, faults))
    except PayloadError as error:
        text = f"what the plugin offers cannot be told to the host: {error}"
        failure = ("interface", {"message": text})
    except BaseException as error:  # noqa: BLE001 - properties and class bodies of the plugin
        failure = ("interface", _cause(error, faults))
    else:
        flush_output()
        channel.send(Ready(payload=ready))
        return plugin
    flush_output()
    channel.send(Failed(failure[0], payload=pack(failure[1])))
    return None


def _details(error: Any, faults: Faults) -> dict[str, Any]:
    details = _cause(error.cause, faults) if error.cause is not None else {}
    details["message"] = str(error)
    return details


def _cause(error: BaseException, faults: Faults) -> dict[str, Any]:
    code, details = faults.describe(error)
    return {"cause": code, **details}

"""Every place where the host reads a payload of a plugin's, as functions of the payload alone."""

from __future__ import annotations

import contextlib
import logging
import unicodedata
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError
from plugin_sdk.wire.limits import EVENT, REPORT
from plugin_sdk.wire.messages import Failed, Failure, Result, Stopped
from sandbox_host.broker.packed import PackedEvent
from sandbox_host.errors import PluginError, StartError
from sandbox_host.ipc.calls import Pending
from sandbox_host.model import Limits, Manifest, Permissions
from sandbox_host.runtime import answers, launch
from sandbox_host.runtime.audience import Audience
from sandbox_host.runtime.interface import check_ready
from sandbox_host.runtime.log_entries import LogEntries
from sandbox_host.runtime.observed import observed_in
from sandbox_host.runtime.own_services import read_arguments
from sandbox_host.runtime.services import _arguments
from sandbox_host.runtime.throwaway import _problem

CODES = (
    *("exception", "bad-arguments", "no-such-operation", "not-serializable", "message-too-large"),
    *("deadline-passed", "interrupted", "cancelled", "memory", "descriptors", "unheard-of"),
)
_OBEYED = {"Cc", "Cs", "Zl", "Zp"}
_TURNED = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
MANIFEST = Manifest(
    name="MyPlugin",
    identity="my_plugin",
    version="1.0.0",
    description="A plugin.",
    author="Somebody",
    capabilities=("ai_model",),
    dependencies=("core_framework >= 1.0.0",),
    events=("data_processed",),
)
PLAN: Any = SimpleNamespace(
    identity="my_plugin", limits=Limits(), permissions=Permissions(read=("/srv/data",))
)


def check_shown(text: str) -> None:
    """What came from a plugin is bounded, and has nothing that a terminal or a log obeys.

    Spaces of another width (U+2000, say) pass: they only look odd.
    """
    assert len(text) < 100_000
    assert not {unicodedata.category(c) for c in text if c not in "\n\t"} & _OBEYED
    assert not {unicodedata.bidirectional(c) for c in text} & _TURNED


def ready(payload: bytes) -> None:
    """`Ready`: an interface, or a start that failed."""
    try:
        told = launch._start_payload("my_plugin", Result(1, payload=payload))
        interface = check_ready(MANIFEST, told)
    except (StartError, PluginError) as error:
        check_shown(str(error))
        return
    for text in (*interface.operations, *interface.handles, *interface.warnings, interface.kind):
        check_shown(text)
    assert set(interface.handles) <= set(MANIFEST.events)


def failed(payload: bytes) -> None:
    """`Failed`: the error of a start."""
    code = CODES[payload[0] % len(CODES)] if payload else "import"
    try:
        told = launch._start_payload("my_plugin", Failed(code, payload=payload[1:]))
        error: Exception = launch._start_error(PLAN, told)
    except StartError as told_badly:
        error = told_badly
    check_shown(str(error))


def failure(payload: bytes) -> None:
    """`Failure`: the error of a call, or a breach."""
    code = CODES[payload[0] % len(CODES)] if payload else "exception"
    pending = Pending(1, "predict", 101.0, 100.0)
    try:
        answers.value_of(PLAN, pending, Failure(1, code, payload=payload[1:]), None)
    except PluginError as error:
        check_shown(str(error))
        check_shown(getattr(error, "traceback_text", ""))
        check_shown(getattr(error, "type_name", ""))
    except answers.BadAnswerError as error:
        check_shown(str(error))
    else:
        raise AssertionError


def result(payload: bytes) -> None:
    """`Result`: a value, an error of the call, or a breach."""
    pending = Pending(1, "predict", 101.0, 100.0)
    try:
        answers.value_of(PLAN, pending, Result(1, payload=payload), None)
    except (PluginError, answers.BadAnswerError) as error:
        check_shown(str(error))


class _Listening(Audience):
    """Keeps what it would have told."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def _tell(self, event_type: str, data: dict[str, str]) -> None:
        self.shown += [event_type, *data.values()]

    def reported(self, process: Any, denial: Any) -> None:
        self.shown += [denial.text, denial.request]


def handled(payload: bytes) -> None:
    """A `Handled` that is not ok: something for the log, or a breach."""
    try:
        report = unpack(payload, REPORT)
    except PayloadError:
        return
    sayings = SimpleNamespace(told=lambda text, now: text)
    process: Any = SimpleNamespace(identity="my_plugin", plan=PLAN, complaints=sayings)
    listening = _Listening()
    listening.handler_failed(process, "data_processed", report)
    for text in listening.shown:
        check_shown(text)


def stopped(payload: bytes) -> None:
    """`Stopped`: what was used and refused in a trial, and how the clean-up went."""
    observed_in(Stopped(payload=payload), PLAN.permissions)
    with contextlib.suppress(PayloadError):
        check_shown(_problem(unpack(payload)))


class _Kept:
    """Stands in for a log file."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []

    def add(self, entry: bytes) -> None:
        self.entries.append(entry)


def logged(payload: bytes) -> None:
    """`Log`: one entry of whole lines, or a breach."""
    level = payload[0] if payload else 0
    kept: Any = _Kept()
    try:
        LogEntries("my_plugin", kept).take(level, "a\\b", payload[1:])
    except PayloadError:
        assert not kept.entries
        return
    (entry,) = kept.entries
    assert entry.endswith(b"\n")
    first, *more = entry.decode()[:-1].split("\n")
    assert first.split(" ")[0].strip("0123456789") in {*logging._nameToLevel, "LEVEL"}
    assert all(line.startswith("    ") for line in more)
    check_shown(entry.decode())


def asked(payload: bytes) -> None:
    """`Ask`: arguments, or a breach."""
    for read in (_arguments, read_arguments):
        try:
            read(payload)
        except PayloadError as error:
            check_shown(str(error))


def published(payload: bytes) -> None:
    """`Publish`: data that arrives wherever it is delivered, or a breach."""
    try:
        data = unpack(payload, EVENT)
    except PayloadError:
        return
    event = PackedEvent("model_updated", payload, 1.5, "my_plugin", 7)
    delivered = unpack(event.delivery())
    assert delivered.keys() == {"data", "timestamp", "source", "id"}
    assert pack(delivered["data"]) == pack(data) == pack(event.unpack().data)


READERS: tuple[Callable[[bytes], None], ...] = (
    *(ready, failed, failure, result, handled, stopped, logged, asked, published),
)

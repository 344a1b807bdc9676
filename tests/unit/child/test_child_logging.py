"""How the standard library's `logging` reaches the host from inside a plugin."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk.child.logging_bridge import attach, entry_sender
from plugin_sdk.wire.codec import unpack
from plugin_sdk.wire.errors import LocalProtocolError
from plugin_sdk.wire.limits import MAX_ERROR_TEXT_BYTES
from plugin_sdk.wire.message import Message

Entries = list[tuple[int, str, str]]


@pytest.fixture
def entries() -> Entries:
    return []


@pytest.fixture
def module(entries: Entries) -> ModuleType:
    """Return a `logging` of the test's own, attached: the real one is pytest's."""
    assert logging.__file__
    spec = importlib.util.spec_from_file_location("logging_of_the_test", logging.__file__)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    attach(made, lambda *entry: entries.append(entry))
    return made


def test_an_entry_has_its_level_and_logger(module: Any, entries: Entries) -> None:
    module.getLogger("a.b").warning("%s of %d", "one", 2)
    module.error("by the root")
    module.info("below the root's level, as everywhere")
    assert entries == [(30, "a.b", "one of 2"), (40, "root", "by the root")]


def test_an_exception_has_its_traceback(module: Any, entries: Entries) -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        module.exception("while reading")
    ((_, _, text),) = entries
    assert text.startswith("while reading\nTraceback (most recent call last):")
    assert text.endswith("KeyError: 'lost'")


@pytest.mark.parametrize(
    "options",
    [{}, {"format": "%(asctime)s %(message)s"}, {"stream": sys.stderr}, {"force": True}],
    ids=["plain", "format", "stream", "force"],
)
def test_basic_config_sets_the_level(module: Any, entries: Entries, options: Any) -> None:
    module.basicConfig(level="DEBUG", **options)
    module.debug("deep")
    assert entries == [(10, "root", "deep")]
    assert len(module.root.handlers) == 1
    module.basicConfig(level="ERROR")  # the first one counts, as the module documents
    assert module.root.level == module.DEBUG
    module.basicConfig(level="ERROR", force=True)
    assert module.root.level == module.ERROR
    module.error("still there")
    assert entries[1:] == [(40, "root", "still there")]


def test_handlers_of_the_plugins_own_count(module: Any, entries: Entries, tmp_path: Any) -> None:
    module.basicConfig(filename=tmp_path / "log", filemode="w", format="%(message)s")
    module.warning("to the file")
    module.shutdown()
    assert (tmp_path / "log").read_text() == "to the file\n"
    assert entries == []


def test_a_bad_configuration_leaves_it_as_it_was(module: Any, entries: Entries) -> None:
    with pytest.raises(ValueError, match="Unrecognised"):
        module.basicConfig(nonsense=1)
    module.warning("still there")
    assert entries == [(30, "root", "still there")]


def test_without_any_handler_entries_arrive_all_the_same(module: Any, entries: Entries) -> None:
    module.root.handlers.clear()
    module.getLogger("a").warning("last resort")
    assert entries == [(30, "a", "last resort")]


def test_a_filter_and_a_bad_format(
    module: Any, entries: Entries, capsys: pytest.CaptureFixture[str]
) -> None:
    module.root.handlers[0].addFilter(lambda record: record.msg != "no")
    module.warning("no")
    module.warning("%d", "no number")
    module.warning("yes")
    assert entries == [(30, "root", "yes")]
    assert "Logging error" in capsys.readouterr().err


HOOKED = """
import sys
from plugin_sdk.child.logging_bridge import install_bridge
found = []
install_bridge(lambda *entry: found.append(entry))
assert "logging" not in sys.modules
import logging, importlib
logging.warning("one")
importlib.reload(logging)
logging.warning("two")
assert found == [(30, "root", "one"), (30, "root", "two")], found
assert type(logging.__loader__) is type(importlib.__loader__), logging.__loader__
assert logging.__spec__.loader is logging.__loader__
import logging.config, logging.handlers
"""


def test_it_is_attached_when_the_plugin_imports_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOOKED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# -- what is sent ---------------------------------------------------------------------------------


@given(st.one_of(st.integers(), st.none(), st.floats()), st.text(), st.text())
def test_whatever_it_is_it_can_be_sent(level: Any, logger: str, text: str) -> None:
    sent: list[Message] = []
    entry_sender(sent.append)(level, logger, text)
    (message,) = sent
    message.header()
    assert isinstance(unpack(message.payload), str)


@pytest.mark.parametrize("text", ["x" * 10**6, "ä" * 10**5, "\ud800" * 10_000, "\x00" * 20_000])
def test_a_long_text_is_cut(text: str) -> None:
    sent: list[Message] = []
    entry_sender(sent.append)(30, "ä" * 1_000, text)
    (message,) = sent
    message.header()
    assert MAX_ERROR_TEXT_BYTES - 100 < len(message.payload) <= MAX_ERROR_TEXT_BYTES
    assert unpack(message.payload).endswith(" ...")


@pytest.mark.parametrize("error", [LocalProtocolError("closed"), BrokenPipeError()])
def test_where_nothing_can_be_sent_it_is_printed(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def send(_: Message) -> None:
        raise error

    entry_sender(send)(25, "a", "one\ntwo")
    assert capsys.readouterr().err == "LEVEL25 a: one\n    two\n"

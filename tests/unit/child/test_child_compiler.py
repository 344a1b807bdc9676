"""Sources become what the import system would have cached, and nothing of them runs."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from plugin_sdk.child.compiler import compile_sources, compiled, tag
from plugin_sdk.wire.codec import unpack
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Publish, Ready

SOURCE = "ANSWER = 42\n\ndef where():\n    return where.__code__.co_filename\n"


class Sent:
    """A channel that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> None:
        self.messages.append(message)


@pytest.fixture(autouse=True)
def _warnings_as_they_were() -> Iterator[None]:
    with warnings.catch_warnings():
        yield


def sent(package: Path, *paths: str) -> tuple[dict[str, bytes], Message]:
    """Return what was published, by event type, and the last message."""
    channel = Sent()
    compile_sources(channel, str(package), list(paths))  # type: ignore[arg-type]
    *results, last = channel.messages
    assert all(isinstance(one, Publish) for one in results)
    return {one.event_type: one.payload for one in results if isinstance(one, Publish)}, last


def write(directory: Path, files: dict[str, str]) -> Path:
    for path, source in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(source)
    return directory


def test_each_source_is_sent_under_its_number(tmp_path: Path) -> None:
    package = write(tmp_path, {"__init__.py": "", "sub/deep.py": SOURCE})
    results, last = sent(package, "__init__.py", "sub/deep.py")
    assert list(results) == [f"0.{tag()}", f"1.{tag()}"]
    assert tag() == sys.implementation.cache_tag
    assert isinstance(last, Ready)
    assert unpack(last.payload) == {}


def test_the_import_system_takes_the_result_for_its_own(tmp_path: Path) -> None:
    """Also where the source lies elsewhere by then, and has other times."""
    (data,) = sent(write(tmp_path / "a", {"m.py": SOURCE}), "m.py")[0].values()
    source = write(tmp_path / "b", {"m.py": SOURCE}) / "m.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir()
    cached.write_bytes(data)
    loader = SourceFileLoader("m", str(source))
    loader.source_to_code = None  # type: ignore[assignment]  # nothing is compiled any more
    names: dict[str, object] = {}
    exec(loader.get_code("m"), names)  # type: ignore[arg-type]
    assert names["ANSWER"] == 42
    assert names["where"]() == str(source)  # type: ignore[operator]


@pytest.mark.parametrize(
    "source",
    [
        b"def",
        b"\xff\xfe",
        b"x = '\0'",
        b"# coding: no-such\n",
        b"(" * 5_000,
        b"x = " + b"-" * 50_000,
    ],
    ids=["syntax", "encoding", "nul", "cookie", "brackets", "depth"],
)
def test_what_does_not_compile_is_left_out(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "bad.py").write_bytes(source)
    write(tmp_path, {"good.py": SOURCE})
    results, last = sent(tmp_path, "bad.py", "missing.py", "good.py")
    assert list(results) == [f"2.{tag()}"]
    assert isinstance(last, Ready)


def test_nothing_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    write(tmp_path, {"m.py": f"open({str(ran)!r}, 'w')\nraise SystemExit\n"})
    assert compiled(str(tmp_path), "m.py") is not None
    assert not ran.exists()


def test_the_compilers_warnings_go_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Else what it prints could fill a pipe that nobody need read."""
    sent(write(tmp_path, {"m.py": "x = '\\d'\nif x is 1: pass\n"}), "m.py")
    assert capfd.readouterr() == ("", "")

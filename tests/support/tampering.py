"""What the tables in tests/tamper share: a signed plugin to tamper with, and who judges it.

A case does one thing to what was good and says which refusal that must get, exactly. It is judged
by the command `verify` and by a host that loads, which have to say the same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox_host import BlockingHost, Downgrade, HostConfig, SandboxHost
from sandbox_host.bundle import Contents
from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.cli import main
from sandbox_host.errors import (
    BundleError,
    ClockError,
    EquivocationError,
    HistoryError,
    ManifestError,
    PluginNotFoundError,
    RefusedError,
    RollbackError,
    SandboxHostError,
    TrustStoreError,
    UnsignedError,
    UntrustedError,
    VerificationError,
)
from sandbox_host.observe.journal import last_entries
from sandbox_host.runtime.history_store import HISTORY_NAME
from tests.support.bundles import plugin_files, signed_contents, store_text, write_files
from tests.support.forgeries import KEY

MAIN = "from plugin_sdk import operation\nfrom . import helper\n\n\n@operation\ndef who():\n"
MAIN += "    return helper.WHO\n"
HELPER = "WHO = 'signed'\n"
EVIL = "WHO = 'forged'\n"
FILES = {"main.py": MAIN, "helper.py": HELPER, "data/table.csv": "a,b\n1,2\n"}
PLAIN = plugin_files(FILES)
GOOD: Final = signed_contents(KEY, FILES)
"""Of a developer's key: what a publisher's signs is remembered from then on."""

TRUST: Final = store_text(KEY).replace('"publisher"', '"developer"')

LONG_AGO = (1, 1)
"""The clock of a file system may be too coarse to tell a change from what was just written."""

_EXITS: Final = {
    VerificationError: 1,
    BundleError: 1,
    ManifestError: 1,
    UnsignedError: 3,
    UntrustedError: 4,
    RollbackError: 5,
    EquivocationError: 5,
    ClockError: 5,
    TrustStoreError: 6,
    HistoryError: 6,
}


@dataclass(frozen=True)
class Case:
    """One way to tamper, and what has to be said of it.

    Attributes:
        name: of the case.
        tamper: does it; returns what is to be judged, if that is not the plugin's directory.
        error: exactly this class; None for a control, which has to pass.
        words: are in the refusal.
    """

    name: str
    tamper: Tamper
    error: type[SandboxHostError] | None = None
    words: str = ""

    def __str__(self) -> str:
        return self.name


def named(cases: Iterable[Case]) -> list[Case]:
    """Return the cases, of which no two have one name."""
    found = list(cases)
    assert len({case.name for case in found}) == len(found)
    return found


def sampled(cases: Iterable[Case]) -> list[Case]:
    """Return every control and every third of the others: a host comes by the same function."""
    found = list(cases)
    return [case for index, case in enumerate(found) if case.error is None or index % 3 == 0]


@dataclass(frozen=True)
class Said:
    """What `verify` said: its exit code, the verdict's, and why."""

    exit: int
    code: str
    text: str


class Bench:
    """A signed plugin, a trust store, a host: made anew for each case, but for the host.

    Args:
        root: a directory of the tests' own.
        trust: the trust store.
        good: the plugin.
        config: more fields of the host's configuration.

    Attributes:
        scene: where everything is that a case may touch.
        plugin: its directory.
        archive: where cases write an archive; nothing is there.
        trust: the trust store's file, in a directory of its own.
    """

    def __init__(
        self, root: Path, trust: str = TRUST, good: Contents = GOOD, **config: Any
    ) -> None:
        self.scene = root / "a case"
        self.plugin = self.scene / "plug ins" / "sample"
        self.archive = self.plugin.with_name("sample 1.plugin")
        self.trust = self.scene / "trust" / "trust.toml"
        self.good = good
        state_dir = root / "state" / "sandbox-host"
        self.config = HostConfig(trust_store=self.trust, state_dir=state_dir, **config)
        self._store = trust
        self._undo = contextlib.ExitStack()
        self._host: BlockingHost | None = None
        self._remembered = b""
        self.reset()

    @property
    def host(self) -> BlockingHost:
        """The host, opened when it is first asked for."""
        if self._host is None:
            self._host = self._undo.enter_context(SandboxHost.blocking(self.config))
            self._remembered = self.history.read_bytes()
        return self._host

    @property
    def history(self) -> Path:
        """The file in which hosts remember what they admitted."""
        return self.config.state_dir / HISTORY_NAME

    def remember(self) -> None:
        """Have each case begin with what the host remembers now."""
        self._remembered = self.history.read_bytes()

    def close(self) -> None:
        """Close the host."""
        self._undo.close()

    def reset(self) -> None:
        """Put the plugin and the trust store back to what they were."""
        shutil.rmtree(self.scene, ignore_errors=True)
        self.put(self.good)
        self.trust.parent.mkdir(mode=0o700)
        self.write_trust(self._store)
        if self._remembered:
            if self.history.is_dir():
                self.history.rmdir()
            self.history.unlink(missing_ok=True)
            self.write_trust(self._remembered, self.history)

    def put(self, contents: Contents, where: Path | None = None) -> Path:
        """Write a plugin in place of what is there, or elsewhere."""
        directory = where or self.plugin
        shutil.rmtree(directory, ignore_errors=True)
        envelope = {} if contents.envelope is None else {ENVELOPE_NAME: contents.envelope}
        write_files(directory, {**contents.files, **envelope})
        for path in directory.rglob("*"):
            os.utime(path, LONG_AGO)
        return directory

    def write_trust(self, text: str | bytes, path: Path | None = None) -> None:
        """Write the trust store, or another file that is protected as that has to be."""
        path = path or self.trust
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)

    # -- judging ------------------------------------------------------------------------------

    def check_by_verify(self, case: Case) -> None:
        """Have the command judge a case."""
        self.reset()
        said = self.said_by_verify(case.tamper(self) or self.plugin)
        if case.error is None:
            assert (said.exit, said.code) == (0, "verified"), said
            return
        assert said.exit == _EXITS[case.error], said
        # Without a trust store or a history there is no verdict, and so no report.
        judged = issubclass(case.error, RefusedError)
        assert said.code == (case.error.code if judged else ""), said
        assert case.words in said.text

    def said_by_verify(self, path: Path) -> Said:
        """Return what the command says of a path."""
        out, err = io.StringIO(), io.StringIO()
        arguments = ["verify", str(path), "--trust-store", str(self.trust), "--format", "json"]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(arguments)
        assert "Traceback" not in err.getvalue()
        if not out.getvalue():
            return Said(code, "", err.getvalue())
        (verdict,) = json.loads(out.getvalue())["verdicts"]
        assert verdict["exit_code"] == code
        return Said(code, verdict["verdict"], verdict.get("reason", ""))

    def check_by_host(self, case: Case) -> None:
        """Have a host judge a case."""
        self._unload()  # and so the host is open before anything is done
        self.reset()
        path = case.tamper(self) or self.plugin
        if case.error is None:
            assert self.answer_of(path) == "signed"
        else:
            assert case.words in self.refusal_of(path, case.error)

    def answer_of(self, path: Path, *downgrades: Downgrade) -> str:
        """Load a plugin that has to pass, and return who answers."""
        try:
            answer: str = self.host.load(path, downgrades=downgrades).call("who")
        finally:
            self._unload()
        return answer

    def _unload(self) -> None:
        if "sample" in self.host.plugins:
            self.host.unload("sample")
        with contextlib.suppress(PluginNotFoundError):
            self.host.remove_data("sample")

    def refusal_of(self, path: Path, error: type[SandboxHostError], *downgrades: Downgrade) -> str:
        """Load a plugin that has to be refused, with nothing of it executed; return the text."""
        with pytest.raises(SandboxHostError) as caught:
            self.host.load(path, downgrades=downgrades)
        assert type(caught.value) is error, caught.value
        assert str(caught.value).isprintable()
        assert self.host.plugins == {}
        assert not (self.config.state_dir / "data" / "sample").exists()
        assert list(self.host._core._launcher._workspace.bundles.iterdir()) == []
        if issubclass(error, RefusedError | TrustStoreError):
            # What is held has a line for its life after that of the refusal.
            *_, last = (
                one for one in last_entries(self.config.journal_path) if one.event != "held"
            )
            assert (last.event, f"[{error.code}]" in last.detail) == ("refused", True)
        return caught.value.message


Tamper = Callable[[Bench], Path | None]


@contextlib.contextmanager
def bench_in(root: Path, *arguments: Any, **config: Any) -> Iterator[Bench]:
    """Give a bench whose host and whose command line have one state directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(root / "config"))
        patch.setenv("XDG_STATE_HOME", str(root / "state"))
        made = Bench(root, *arguments, **config)
        try:
            yield made
        finally:
            made.close()


# -- things to do ---------------------------------------------------------------------------------


def both(*tampers: Tamper) -> Tamper:
    """Do one after the other."""

    def do(bench: Bench) -> Path | None:
        place = None
        for tamper in tampers:
            place = tamper(bench) or place
        return place

    return do


def wrote(path: str, data: bytes | str) -> Tamper:
    """Write a file of the plugin, new or not."""

    def do(bench: Bench) -> None:
        content = data if isinstance(data, bytes) else data.encode()
        write_files(bench.plugin, {path: content})

    return do


def renamed(old: str, new: str) -> Tamper:
    """Give a file of the plugin another name."""

    def do(bench: Bench) -> None:
        (bench.plugin / old).rename(bench.plugin / new)

    return do


def removed(path: str) -> Tamper:
    """Remove a file of the plugin."""

    def do(bench: Bench) -> None:
        (bench.plugin / path).unlink()

    return do


def with_envelope(change: Callable[[bytes], bytes]) -> Tamper:
    """Change the envelope's bytes."""

    def do(bench: Bench) -> None:
        path = bench.plugin / ENVELOPE_NAME
        path.write_bytes(change(path.read_bytes()))

    return do


def as_contents(change: Callable[[Contents], Contents]) -> Tamper:
    """Write what is made of the good plugin, in place of it."""

    def do(bench: Bench) -> None:
        bench.put(change(bench.good))

    return do


def with_trust(text: str | bytes) -> Tamper:
    """Write another trust store."""

    def do(bench: Bench) -> None:
        bench.write_trust(text)

    return do

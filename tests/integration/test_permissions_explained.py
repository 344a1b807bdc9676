"""For each permission a plugin that needs it: denied and explained, then granted and working."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import AdmissionError, OperationError, StartError
from sandbox_host.observe.journal import last_entries
from sandbox_host.runtime.audience import DENIAL_REPORTED
from tests.support.granted_paths import a_shared_object
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

OPENS = {
    "publish": "events of that type to every subscriber of the host's",
    "read": "the path and all that is below it, for reading",
    "write": (
        "the path and all that is below it, for making, changing and removing files, and not for "
        "reading them"
    ),
    "env": "its value, as the host has it when the plugin is loaded",
    "network": (
        "TCP connections to that host and port, and to nothing else; whatever the plugin can read, "
        "it can send there"
    ),
    "native_code": (
        "shared objects that the plugin brings or writes, and executable memory: a fault in a "
        "library is easier to turn into code of an attacker's"
    ),
    "unix": "that socket, and whatever its server does for who asks",
    "services": "that service of the application, or of the host's own",
    "subprocess": "processes of its own, which are confined and accounted for as the plugin is",
    "threads": 'threads, as many as "limits": {"threads": …} says',
}


@dataclass(frozen=True)
class Need:
    """A plugin that needs one permission.

    Attributes:
        permission: by its name in plugin.json.
        line: what it does; `{it}` is what it needs, as Python writes it.
        refused: what was refused, in the host's words; `{it}` is the same as JSON.
        error: the exception's class inside.
        it: what it needs, of the arena.
        entry: what plugin.json and the operator say; none for a permission that is a flag.
        unknown: what stands for the entry in the explanation, where it cannot be known.
        also: permissions that it needs beside.
    """

    permission: str
    line: str
    refused: str
    error: str
    it: Callable[[Arena], str] = lambda arena: ""
    entry: Callable[[Arena], str] | None = None
    unknown: str = ""
    also: dict[str, Any] = field(default_factory=dict)

    def requested(self, arena: Arena) -> dict[str, Any]:
        """Return what plugin.json asks for."""
        return {**self.also, self.permission: True if self.entry is None else [self.entry(arena)]}


@dataclass(frozen=True)
class Arena:
    """Things outside of the sandbox that plugins want.

    Attributes:
        root: a directory, open to everybody.
        port: of a server on the loopback.
        socket: path of a server's.
    """

    root: Path
    port: int
    socket: str

    @property
    def file(self) -> str:
        """A file with text in it."""
        return str(self.root / "wanted.txt")


NEEDS = [
    Need("publish", "context().publish({it}, 1)", "publishing {it}", "PermissionDenied",
         it=lambda _: "model_updated", entry=lambda _: "model_updated"),
    Need("read", "return open({it}).read()", "reading {it}", "FileNotFoundError",
         it=lambda arena: arena.file, entry=lambda arena: arena.file),
    Need("write", "open({it}, 'a').write('more')", "writing to {it}", "FileNotFoundError",
         it=lambda arena: arena.file, entry=lambda arena: arena.file),
    Need("env", "return os.environ[{it}]", "seeing the environment variable {it}", "KeyError",
         it=lambda _: "WANTED_BY_PLUGIN", entry=lambda _: "WANTED_BY_PLUGIN"),
    Need("network", "socket.create_connection(({it}.split(':')[0], int({it}.split(':')[1])))",
         "connecting to {it}", "PermissionError",
         it=lambda arena: f"127.0.0.1:{arena.port}", entry=lambda arena: f"127.0.0.1:{arena.port}"),
    Need("native_code", "mmap.mmap(-1, 4096, mmap.MAP_PRIVATE, mmap.PROT_EXEC)",
         "using native code ({it})", "PermissionError", it=lambda _: "executable memory"),
    Need("threads", "threading.Thread(target=int).start()", "starting a thread", "RuntimeError"),
]  # fmt: skip

NEEDS += [
    Need("services", "assert context().ask({it}) == 7", "calling the service {it}",
         "PermissionDenied", it=lambda _: "prices.latest", entry=lambda _: "prices.latest"),
]  # fmt: skip
NEEDING_MORE = [
    pytest.param(
        # The path is not known when the socket itself is refused.
        Need("unix", "socket.socket(socket.AF_UNIX).connect(ARENA)",
             "connecting to a Unix socket", "PermissionError",
             entry=lambda arena: arena.socket, unknown='"<path>"'),
        marks=pytest.mark.needs("own-root", "network-namespace"), id="unix",
    ),
    pytest.param(
        Need("subprocess", "os.waitpid(os.fork() or os._exit(0), 0)", "starting a process",
             "PermissionError"),
        marks=pytest.mark.needs("own-root", "pid-namespace", "cgroup"), id="subprocess",
    ),
]  # fmt: skip

each = pytest.mark.parametrize(
    "need", [*(pytest.param(need, id=need.permission) for need in NEEDS), *NEEDING_MORE]
)


@pytest.fixture
def arena(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Arena]:
    root = tmp_path / "an arena"
    root.mkdir(mode=0o755)
    (root / "wanted.txt").write_text("wanted")
    (root / "wanted.txt").chmod(0o666)
    monkeypatch.setenv("WANTED_BY_PLUGIN", "wanted")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        # A short path: a socket's has at most 107 bytes.
        path = Path(tempfile.mkdtemp(prefix="arena-")) / "s"
        path.parent.chmod(0o755)
        unix.bind(str(path))
        path.chmod(0o666)
        unix.listen()
        try:
            with _accepting(server):
                yield Arena(root, server.getsockname()[1], str(path))
        finally:
            shutil.rmtree(path.parent)


@contextmanager
def _accepting(server: socket.socket) -> Iterator[None]:
    def accept() -> None:
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(server.accept()[0])
                except OSError:
                    return

    thread = threading.Thread(target=accept)
    thread.start()
    yield
    server.shutdown(socket.SHUT_RDWR)
    thread.join()


def plugin_with(need: Need, arena: Arena) -> str:
    line = need.line.format(it=repr(need.it(arena)))
    names = f"import mmap, socket\nARENA = {arena.socket!r}\n"
    return f"{names}@operation\ndef attempt():\n    {line}\n"


@each
def test_denied_it_says_why_in_the_hosts_words(
    need: Need, arena: Arena, workshop: Workshop
) -> None:
    source = plugin_with(need, arena)
    config = workshop.config()
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(source, permissions=need.also))
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt")
    denial = caught.value.denial
    assert denial is not None
    assert caught.value.type_name.rpartition(".")[2] == need.error
    line = next(
        number
        for number, text in enumerate(_main(workshop).splitlines(), 1)
        if need.line.format(it=repr(need.it(arena))) in text
    )
    entry = need.unknown or (need.entry and json.dumps(need.entry(arena)))
    value = f"[{entry}]" if entry else "true"
    request = f'"permissions": {{"{need.permission}": {value}}}'
    more = " (or its directory, for a file that is to be made)"
    said = (
        f"{need.refused.format(it=json.dumps(need.it(arena)))} at main.py:{line} in attempt is not "
        f"granted to this plugin; in plugin.json it would be {request}"
        f"{more if need.permission == 'write' else ''}, and the operator grants it. That opens "
        f"{OPENS[need.permission]}"
    )
    assert denial.text == said
    assert (denial.rule, denial.asked) == (need.permission, need.it(arena))
    assert (denial.place, denial.request) == (f"main.py:{line} in attempt", request)
    # To whoever called it, in the error; to the author, in the exception inside.
    assert str(caught.value).endswith(
        f"{said[0].upper()}{said[1:]}. (By the word of the plugin's own process.)"
    )
    assert f"denied by the sandbox; in plugin.json: {request}" in caught.value.traceback_text
    # To the operator, in the journal.
    (entry,) = last_entries(config.journal_path, DENIAL_REPORTED, 10)
    assert (entry.plugin, entry.detail) == ("sample", said)


def _main(workshop: Workshop) -> str:
    (path,) = (workshop.root / "plugins").glob("*/sample/main.py")
    return path.read_text()


@each
def test_granted_it_works(need: Need, arena: Arena, workshop: Workshop) -> None:
    requested = need.requested(arena)
    config = workshop.config(grants={"sample": requested})
    with SandboxHost.blocking(config) as host:
        host.offer("prices.latest", lambda: 7)
        plugin = host.load(workshop.write(plugin_with(need, arena), permissions=requested))
        plugin.call("attempt")
    assert last_entries(config.journal_path, DENIAL_REPORTED, 10) == []


def test_handling_is_denied_at_the_load_and_granted_it_works(workshop: Workshop) -> None:
    """There is nothing to try: a plugin that may not handle what it handles is not loaded."""
    source = "@on('user_action')\ndef heard(event):\n    open(context().data_dir + '/heard', 'w')\n"
    path = workshop.write(source, events=["user_action"])
    denying = workshop.config(grants={"sample": {"subscribe": []}})
    with SandboxHost.blocking(denying) as host, pytest.raises(AdmissionError) as caught:
        host.load(path)
    assert str(caught.value) == (
        "Plugin sample is not admitted: plugin.json: permissions.subscribe[0]: handling "
        '"user_action" is not granted. To grant it, write in the host\'s TOML under '
        '[grants."sample"]: subscribe = ["user_action"].'
    )
    with SandboxHost.blocking(
        workshop.config(grants={"sample": {"subscribe": ["user_*"]}})
    ) as host:
        plugin = host.load(path)
        host.publish("user_action")
        plugin.call("echo")
    assert (workshop.data_dir("sample") / "heard").exists()


# -- beside the table ------------------------------------------------------------------------------


def test_a_shared_object_that_was_written(workshop: Workshop, tmp_path: Path) -> None:
    source = """
    @operation
    def attempt(data):
        with open(context().data_dir + "/own.so", "wb") as file:
            file.write(data)
        ctypes.CDLL(context().data_dir + "/own.so")
    """
    data = a_shared_object().read_bytes()
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(source))
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt", data)
    assert caught.value.denial is not None
    assert caught.value.denial.request == '"permissions": {"native_code": true}'
    assert caught.value.denial.asked.endswith("/own.so")


def test_a_callback_in_c_is_no_lack_of_memory(workshop: Workshop) -> None:
    source = """
    @operation
    def attempt():
        return ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)()

    @operation
    def really():
        return bytearray(2**46)
    """
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(workshop.write(source))
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt")
        with pytest.raises(Exception, match="ran out of memory"):
            plugin.call("really")
    assert caught.value.denial is not None
    assert caught.value.denial.rule == "native_code"


@pytest.mark.parametrize(
    ("line", "rule", "words"),
    [
        ("subprocess.run(['ls'])", "subprocess", 'starting a process ("ls")'),
        ("os.fork()", "subprocess", "starting a process"),
        ("os.execv('/bin/ls', ['ls'])", "subprocess", "starting a process"),
        ("multiprocessing.Process(target=int).start()", "subprocess", "starting a process"),
        ("socket.socket(socket.AF_UNIX)", "unix", "connecting to a Unix socket"),
        ("socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "never", "a socket that is not of"),
        ("mmap.mmap(-1, 4096)", "never", "memory that processes share"),
        ("os.kill(1, 9)", "never", "a signal to another process"),
        ("os.symlink('a', 'b')", "never", "making a symbolic link"),
        ("open(__file__, 'w')", "bundle", "nobody changes the files that were signed"),
        ("urllib.request.urlopen('http://example.org/')", "network", '"example.org:80"'),
        ("asyncio.run(asyncio.open_connection('127.0.0.1', 9))", "network", '"127.0.0.1:9"'),
        ("os.listdir('/home')", "read", '"/home"'),
        ("os.makedirs('/srv/deep/below')", "write", '"/srv/deep/below"'),
        ("pathlib.Path('/srv/x').write_text('x')", "write", '"/srv/x"'),
        ("shutil.copy('/etc/hosts', context().data_dir)", "read", '"/etc/hosts"'),
        ("open('/sys/kernel/notes')", "read", "the kernel's own is given to no plugin"),
        ("os.environ['LD_PRELOAD']", "env", "the dynamic linker obeys it"),
    ],
    ids=lambda value: value if "(" in value or "[" in value else "",
)
def test_other_ways_to_ask(
    line: str, rule: str, words: str, refusals: Callable[[str], Any]
) -> None:
    denial = refusals(line)
    assert denial.rule == rule
    assert words in denial.text
    assert denial.place.startswith("main.py:")


IMPORTS = (
    "import asyncio, mmap, multiprocessing, pathlib, shutil, socket, subprocess, urllib.request\n"
)


@pytest.fixture
def refusals(shared_load: Load) -> Callable[[str], Any]:
    def denial(line: str) -> Any:
        plugin = shared_load(f"{IMPORTS}@operation\ndef attempt():\n    {line}\n")
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt")
        return caught.value.denial

    return denial


@pytest.mark.parametrize(
    "line",
    [
        "open(context().data_dir + '/nowhere')",
        "open('relative/nowhere')",
        "{}['PATH']",
        "os.environ['x' * 3] if 0 else int('x')",
        "os.remove(context().scratch_dir + '/x')",
    ],
)
def test_what_is_no_refusal_is_not_called_one(line: str, refusals: Callable[[str], Any]) -> None:
    assert refusals(line) is None


def test_what_caused_an_exception_is_found_behind_it(refusals: Callable[[str], Any]) -> None:
    line = "\n    ".join(
        (
            "try:",
            "    open('/etc/passwd')",
            "except OSError as error:",
            "    raise ValueError('no users') from error",
        )
    )
    denial = refusals(line)
    assert (denial.rule, denial.asked) == ("read", "/etc/passwd")
    assert "open('/etc/passwd')" not in denial.text


def test_at_import_the_start_says_it(workshop: Workshop) -> None:
    config = workshop.config()
    with SandboxHost.blocking(config) as host, pytest.raises(StartError) as caught:
        host.load(workshop.write("open('/etc/passwd')"))
    assert caught.value.denial is not None
    assert caught.value.denial.asked == "/etc/passwd"
    assert len(last_entries(config.journal_path, DENIAL_REPORTED, 10)) == 1


def test_in_a_handler_the_journal_says_it(workshop: Workshop) -> None:
    config = workshop.config()
    source = "@on('user_action')\ndef heard(event):\n    open('/etc/passwd')\n"
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(source, events=["user_action"]))
        host.publish("user_action")
        plugin.call("echo")  # it answers in order
        (entry,) = last_entries(config.journal_path, DENIAL_REPORTED, 10)
    assert 'reading "/etc/passwd"' in entry.detail


def test_what_is_granted_and_refused_by_modes_is_told_so(
    workshop: Workshop, tmp_path: Path, arena: Arena
) -> None:
    Path(arena.file).chmod(0o000)
    granted = {"read": [str(arena.root)]}
    with SandboxHost.blocking(workshop.config(grants={"sample": granted})) as host:
        source = f"@operation\ndef attempt():\n    open({arena.file!r})\n"
        plugin = host.load(workshop.write(source, permissions=granted))
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt")
    denial = caught.value.denial
    assert denial is not None
    assert denial.request == ""
    assert "is granted, and what refused it is outside of the sandbox" in denial.text


def test_one_that_is_denied_by_the_hosts_desk_is_written_down_once(
    workshop: Workshop, arena: Arena
) -> None:
    granted = {"network": [f"127.0.0.1:{arena.port}"]}
    config = workshop.config(grants={"sample": granted})
    source = """
    import socket
    @operation
    def attempt():
        socket.create_connection(("127.0.0.1", 1))
    """
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(source, permissions=granted))
        with pytest.raises(OperationError) as caught:
            plugin.call("attempt")
    assert caught.value.denial is not None
    assert caught.value.denial.asked == "127.0.0.1:1"
    assert last_entries(config.journal_path, DENIAL_REPORTED, 10) == []
    assert len(last_entries(config.journal_path, "denied", 10)) == 1

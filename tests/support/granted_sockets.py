"""A plugin that was granted Unix sockets: ``python -m tests.support.granted_sockets``.

Prints one JSON object: what came of each of `ATTEMPTS` by name ("works", the name of an errno, or
of another exception), what the same does to who is not confined, whom the server saw, and what
became of it when the server was started anew.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox_host import SandboxHost
from tests.support.host import Workshop

SOURCE = """
import array, asyncio, socket, stat, struct
from _socket import socket as plain

UNIX, STREAM = socket.AF_UNIX, socket.SOCK_STREAM

def connected(path):
    made = socket.socket(UNIX, STREAM)
    made.settimeout(10)
    made.connect(path)
    return made

def echo(made):
    with made:
        made.sendall(b"hello")
        assert made.recv(16) == b"hello"

async def by_asyncio(path):
    reader, writer = await asyncio.open_unix_connection(path)
    writer.writelines([b"hel", b"lo"])
    assert await reader.readexactly(5) == b"hello"
    writer.close()

def by_c(path):
    c = ctypes.CDLL(None, use_errno=True)
    made = c.socket(1, 1, 0)
    address = struct.pack("H108s", 1, path.encode())
    if made < 0 or c.connect(made, address, len(address)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    echo(socket.socket(fileno=made))

def send_descriptor(made):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1]))]
    plain.sendmsg(made, [b"x"], rights)

@operation
def attempt(code, names):
    here = {**globals(), **names, "data": context().data_dir}
    try:
        exec(code, here)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "works"
"""

ATTEMPTS = {
    "connect": "echo(connected(granted))",
    "connect to another that was granted": "echo(connected(second))",
    "connect by asyncio": "asyncio.run(by_asyncio(granted))",
    "connect by C": "by_c(granted)",
    "several at once": "made = [connected(granted) for _ in range(8)]; [echo(one) for one in made]",
    "its attributes": "assert stat.S_ISSOCK(os.stat(granted).st_mode)",
    # No other socket is in reach.
    "one beside it": "connected(beside)",
    "one beside it, relative": "os.chdir(os.path.dirname(granted)); connected('beside')",
    "one beside it by dot dot": "connected(granted + '/../beside')",
    "an abstract one": "connected('\\0' + abstract)",
    "one in a directory of the host's": "connected(hosts)",
    "one beside it by C": "by_c(beside)",
    # It can do nothing but connect.
    "a datagram socket": "socket.socket(UNIX, socket.SOCK_DGRAM)",
    "a sequenced one": "socket.socket(UNIX, socket.SOCK_SEQPACKET)",
    "a pair of datagram sockets": "socket.socketpair(UNIX, socket.SOCK_DGRAM)",
    "bind": "socket.socket(UNIX, STREAM).bind(data + '/socket')",
    "bind to no name": "socket.socket(UNIX, STREAM).bind('')",
    "listen": "socket.socket(UNIX, STREAM).listen(1)",
    "make a socket's file": "os.mknod(data + '/socket', 0o600 | stat.S_IFSOCK)",
    "send a descriptor": "send_descriptor(connected(granted))",
    "send a descriptor in a pair": "send_descriptor(socket.socketpair()[0])",
    "take a descriptor": "m = connected(granted); m.settimeout(None); plain.recvmsg(m, 16, 1024)",
    "out of band": "connected(granted).send(b'!', socket.MSG_OOB)",
    "who is there": "connected(granted).getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)",
    "a hold on who is there": "connected(granted).getsockopt(socket.SOL_SOCKET, 77)",
    "ask for credentials": "connected(granted).setsockopt(socket.SOL_SOCKET, 16, 1)",
    # And nothing to the socket's file.
    "open it": "os.close(os.open(granted, os.O_RDWR))",
    "remove it": "os.remove(granted)",
    "move it": "os.rename(granted, data + '/moved')",
    "link it": "os.link(granted, data + '/linked')",
    "change its mode": "os.chmod(granted, 0o777)",
    # Nor to any network.
    "TCP": "socket.socket(socket.AF_INET, STREAM)",
    "TCP over IPv6": "socket.socket(socket.AF_INET6, STREAM)",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
}


class Echo:
    """Listens at an address until it is closed, and sends back what comes."""

    def __init__(self, address: str) -> None:
        self.peers: list[tuple[int, int]] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                made, _ = self._listener.accept()
                said = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid, uid, _ = struct.unpack("iII", said)
                self.peers.append((pid, uid))
                threading.Thread(target=self._serve, args=(made,), daemon=True).start()

    @staticmethod
    def _serve(made: socket.socket) -> None:
        with made, contextlib.suppress(OSError):
            while data := made.recv(1_024):
                made.sendall(data)

    def close(self) -> None:
        """Listen no more; the socket's file stays, as a server leaves it that was killed."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def echo_server(address: str | Path) -> Iterator[Echo]:
    """Serve at a path, in a file that everybody may connect to, or an abstract address."""
    server = Echo(str(address))
    if not str(address).startswith("\0"):
        Path(address).chmod(0o777)
    try:
        yield server
    finally:
        server.close()


def _alone(names: dict[str, str]) -> dict[str, str]:
    """Return what some of the same does to who is not confined."""
    met = {}
    targets = {"beside": names["beside"], "abstract": "\0" + names["abstract"]}
    for name, address in {**targets, "host's": names["hosts"]}.items():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
            met[name] = errno.errorcode.get(made.connect_ex(address), "works")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        made.connect(names["granted"])
        socket.send_fds(made, [b"x"], [0])
        met["descriptor"] = "works"
        made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        met["who"] = "works"
    return met


def _outcome(base: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    workshop = Workshop(base / "host")
    there = base / "there"
    there.mkdir(mode=0o755)
    names = {name: str(there / name) for name in ("granted", "second", "beside")}
    names |= {"abstract": f"sandbox-host-test-{os.getpid()}", "hosts": str(base / "host/socket")}
    servers = {
        name: stack.enter_context(echo_server(f"\0{at}" if name == "abstract" else at))
        for name, at in names.items()
    }
    permissions = {"unix": [names["granted"], names["second"]]}
    config = workshop.config(grants={"sample": permissions})
    host = stack.enter_context(SandboxHost.blocking(config))
    bundle = workshop.write(SOURCE, permissions=permissions)
    plugin = host.load(bundle)
    alone = _alone(names)
    servers["granted"].peers.clear()
    met = {name: plugin.call("attempt", code, names) for name, code in ATTEMPTS.items()}
    peers = {uid for _, uid in servers["granted"].peers}
    result = {
        "met": met,
        "alone": alone,
        "peers": sorted(peers),
        "user": os.geteuid(),
        "receipt": [(e.name, e.value, e.mechanism) for e in plugin.receipt.permissions],
        "connections": plugin.usage().connections,
    }
    servers["granted"].close()
    os.unlink(names["granted"])
    connect = ATTEMPTS["connect"]
    stack.enter_context(echo_server(names["granted"]))
    result["anew"] = plugin.call("attempt", connect, names)
    host.unload("sample")
    result["loaded again"] = host.load(bundle).call("attempt", connect, names)
    return result


def main() -> int:
    """Make the attempts and print what came of them."""
    logged = io.StringIO()
    logging.getLogger("sandbox_host").addHandler(logging.StreamHandler(logged))
    with contextlib.ExitStack() as stack:
        base = stack.enter_context(tempfile.TemporaryDirectory(prefix="granted sockets "))
        Path(base).chmod(0o755)
        os.umask(0o022)
        (Path(base) / "host").mkdir()
        outcome = _outcome(Path(base), stack)
    print(json.dumps({**outcome, "logged": logged.getvalue()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

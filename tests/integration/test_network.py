"""A plugin reaches what it requested and was granted, by the clients that programs use."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.errors import AdmissionError, BudgetExceededError, OperationError
from sandbox_host.model import Permissions
from sandbox_host.network import meter
from tests.support.host import Load, Workshop
from tests.support.traces import eventually
from tests.support.web import make_certificate, web_server

pytestmark = pytest.mark.needs("landlock", "seccomp")

CLIENTS = """
import asyncio, http.client, socket, ssl, urllib.request

def told(answer):
    return answer.decode() if isinstance(answer, bytes) else answer

def plain_socket(host, port):
    with socket.create_connection((host, port), timeout=10) as made:
        made.sendall(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        return b"".join(iter(lambda: made.recv(4096), b"")).rpartition(b"\\r\\n\\r\\n")[2]

def step_by_step(host, port):
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.settimeout(10)
    made.connect((host, port))
    assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert made.getpeername()[1] == port
    made.sendall(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
    with made, made.makefile("rb") as file:
        return file.read().rpartition(b"\\r\\n\\r\\n")[2]

def http_client(host, port):
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request("GET", "/hello")
    return connection.getresponse().read()

def urllib_request(host, port):
    with urllib.request.urlopen(f"http://{host}:{port}/hello", timeout=10) as answer:
        return answer.read()

def asyncio_streams(host, port):
    async def ask():
        reader, writer = await asyncio.open_connection(host, port)
        writer.writelines([b"GET /hello HTTP/1.0\\r\\n", b"\\r\\n"])
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.rpartition(b"\\r\\n\\r\\n")[2]
    return asyncio.run(ask())

def many_threads(host, port):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: told(plain_socket(host, port)), range(24)))
    return found.pop() if len(found) == 1 else found

@operation
def ask(client, host, port):
    return told(globals()[client](host, port))

@operation
def ask_tls(host, port, authority):
    context = ssl.create_default_context(cadata=authority)
    with urllib.request.urlopen(f"https://{host}:{port}/hello", context=context) as answer:
        return told(answer.read())

@operation
def fetch(host, port, size):
    with urllib.request.urlopen(f"http://{host}:{port}/bytes/{size}", timeout=10) as answer:
        return len(answer.read())

@operation
def fetch_on(host, port, size):
    while True:
        fetch(host, port, size)

@operation
def openly(code, host, port):
    exec(code, {"socket": socket, "os": os, "host": host, "port": port})

@operation
def attempt(code, host, port):
    names = {"socket": socket, "os": os, "host": host, "port": port, "errno": errno}
    try:
        exec(code, names)
    except OSError as error:
        return [type(error).__name__, error.errno, str(error)]
    return ["", 0, repr(names.get("result"))]
"""
NAMES = (
    *("plain_socket", "step_by_step", "http_client", "urllib_request", "asyncio_streams"),
    "many_threads",
)


Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on the loopback; return their ports."""
    with ExitStack() as stack:
        yield lambda context=None: stack.enter_context(web_server(context))


Reach = Callable[..., BlockingPlugin]


@pytest.fixture
def reach(workshop: Workshop) -> Iterator[Reach]:
    """Load a plugin that requested these endpoints and was granted them."""

    def loaded(*entries: str, **limits: Any) -> BlockingPlugin:
        config = workshop.config(grants={"sample": Permissions(network=entries)})
        host = stack.enter_context(SandboxHost.blocking(config))
        permissions = {"network": list(entries), "threads": True}
        return host.load(workshop.write(CLIENTS, permissions=permissions, limits=limits))

    with ExitStack() as stack:
        yield loaded


@pytest.fixture(scope="module")
def shared_port() -> Iterator[int]:
    with web_server() as port:
        yield port


@pytest.fixture(scope="module")
def standing(shared_workshop: Workshop, shared_port: int) -> Iterator[Reach]:
    """Return a function of an endpoint on the shared port: a plugin that stays, for many tests."""

    def loaded(entry: str) -> BlockingPlugin:
        name = entry.partition(":")[0].replace(".", "_")
        known = host.plugins.get(f"at_{name}")
        if known is not None and known.state == "ready":
            return known
        permissions = {"network": [entry], "threads": True}
        return host.load(shared_workshop.write(CLIENTS, name=f"at_{name}", permissions=permissions))

    grants = {
        name: Permissions(network=(f"{host}:{shared_port}",))
        for name, host in (("at_127_0_0_1", "127.0.0.1"), ("at_localhost", "localhost"))
    }
    with SandboxHost.blocking(shared_workshop.config(grants=grants)) as host:
        yield loaded


@pytest.mark.parametrize("client", NAMES)
def test_granted_by_address(standing: Reach, shared_port: int, client: str) -> None:
    plugin = standing(f"127.0.0.1:{shared_port}")
    assert plugin.call("ask", client, "127.0.0.1", shared_port) == "hello"


@pytest.mark.parametrize("client", NAMES)
def test_granted_by_name(standing: Reach, shared_port: int, client: str) -> None:
    plugin = standing(f"localhost:{shared_port}")
    assert plugin.call("ask", client, "localhost", shared_port) == "hello"


def test_receipt_and_usage_say_what_is_granted(reach: Reach, serve: Serve) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    entries = [entry for entry in plugin.receipt.permissions if entry.name == "network"]
    assert [entry.value for entry in entries] == [f"127.0.0.1:{port}"]
    assert "tried: EPERM" in entries[0].mechanism
    for _ in range(3):
        plugin.call("ask", "http_client", "127.0.0.1", port)
    assert plugin.usage().connections == 3


def test_not_granted_is_not_admitted(workshop: Workshop) -> None:
    bundle = workshop.write(CLIENTS, permissions={"network": ["api.example.org:443"]})
    refused = pytest.raises(AdmissionError, match=r'network = \["api.example.org:443"\]')
    with SandboxHost.blocking(workshop.config()) as host, refused:
        host.load(bundle)


def test_granted_and_not_requested_is_no_network(workshop: Workshop, serve: Serve) -> None:
    port = serve()
    config = workshop.config(grants={"*": Permissions(network=(f"127.0.0.1:{port}",))})
    with SandboxHost.blocking(config) as host:
        plugin = host.load(workshop.write(CLIENTS))
        with pytest.raises(OperationError, match="PermissionError"):
            plugin.call("ask", "plain_socket", "127.0.0.1", port)


CONNECT = "socket.create_connection((host, {port}), 5)"
OF_ITS_OWN = """
import ctypes, struct
c = ctypes.CDLL(None, use_errno=True)
made = socket.create_connection((host, port), 5)
address = {address}
if c.{call} != 0:
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
_TO = "struct.pack('<HH4s8x', 2, socket.htons(port), socket.inet_aton('127.0.0.1'))"
ATTEMPTS = {
    "another port": "socket.create_connection((host, port + 1), 5)",
    "another name of the address": "socket.create_connection(('localhost', port), 5)",
    "another address of the machine": "socket.create_connection(('127.0.0.2', port), 5)",
    "IPv6": "socket.create_connection(('::1', port), 5)",
    "IPv4 in IPv6": "socket.create_connection(('::ffff:127.0.0.2', port), 5)",
    "a name": "socket.getaddrinfo('example.org', 80)",
    "a name, by its old function": "socket.gethostbyname('example.org')",
    "a name, by its other old function": "socket.gethostbyname_ex('example.org')",
    "datagrams": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "datagrams over IPv6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "out of band": "socket.create_connection((host, port), 5).send(b'!', socket.MSG_OOB)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "virtual machines": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "multipath": "socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
    "raw packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "a Unix socket": "socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)",
    "listening": "socket.create_connection((host, port), 5).listen(1)",
    "binding": "socket.socket().bind(('127.0.0.1', 0))",
    "a second connect": OF_ITS_OWN.format(address=_TO, call="connect(made.fileno(), address, 16)"),
    "connect to nothing": OF_ITS_OWN.format(
        address="bytes(16)", call="connect(made.fileno(), address, 16)"
    ),
    "a connect of one's own": OF_ITS_OWN.format(
        address=_TO, call="connect(socket.socket().fileno(), address, 16)"
    ),
    "fast open": OF_ITS_OWN.format(
        address=_TO,
        call="sendto(socket.socket().fileno(), b'x', 1, 0x20000000, address, 16) - 1",
    ),
    "fast open without an address": "socket.socket().send(b'x', 0x20000000)",
    "fast open in a message": (
        "import _socket\n"
        "_socket.socket.sendmsg(socket.socket(), [b'x'], [], 0x20000000, (host, port))"
    ),
    "a descriptor in flight": (
        "import _socket, array\n"
        "pair = socket.socketpair()\n"
        "rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))]\n"
        "_socket.socket.sendmsg(pair[0], [b'x'], rights)"
    ),
    "the host's process": "socket.socket(fileno=os.dup(6)).getsockopt(socket.SOL_SOCKET, 77)",
    "the host's credentials": "socket.socket(fileno=os.dup(6)).getsockopt(1, 17, 12)",
    "fast open as an option": "socket.socket().setsockopt(socket.IPPROTO_TCP, 30, 1)",
    "a filter": "socket.socket().setsockopt(socket.SOL_SOCKET, 26, bytes(16))",
    "another device": "socket.socket().setsockopt(socket.SOL_SOCKET, 25, b'lo')",
    "repair": "socket.socket().setsockopt(socket.IPPROTO_TCP, 19, 1)",
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_else(standing: Reach, shared_port: int, name: str) -> None:
    port = shared_port
    plugin = standing(f"127.0.0.1:{port}")
    kind, number, text = plugin.call("attempt", ATTEMPTS[name], "127.0.0.1", port)
    assert (kind, number) == ("PermissionError", 1), text
    assert plugin.call("ask", "plain_socket", "127.0.0.1", port) == "hello"


OPENLY = (
    *("another port", "another name of the address", "another address of the machine", "IPv6"),
    *("a name", "datagrams", "raw packets", "a Unix socket"),
)


@pytest.mark.parametrize("name", OPENLY)
def test_what_is_refused_is_explained_and_written_down(
    reach: Reach, serve: Serve, workshop: Workshop, name: str
) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    with pytest.raises(OperationError) as caught:
        plugin.call("openly", ATTEMPTS[name], "127.0.0.1", port)
    told = f"{caught.value}\n{caught.value.traceback_text}"
    assert "denied by the sandbox" in told
    lines = (workshop.state_dir / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert any(event.startswith("den") for event in events), events


def test_names_backwards_are_not_resolved(reach: Reach, serve: Serve) -> None:
    port = serve()
    kind, *_ = reach(f"127.0.0.1:{port}").call(
        "attempt", "socket.gethostbyaddr('192.0.2.1')", "", 0
    )
    assert kind in {"herror", "gaierror", "PermissionError"}


def test_a_refusal_explains_itself_and_is_written_down(
    reach: Reach, serve: Serve, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    code = "socket.create_connection(('10.1.2.3', 443), 5)"
    _, _, text = plugin.call("attempt", code, "", 0)
    assert text == (
        "[Errno 1] connecting to 10.1.2.3, port 443, is not granted to this plugin; in plugin.json "
        'it would be "permissions": {"network": ["10.1.2.3:443"]}, and the operator grants it'
    )
    lines = (workshop.state_dir / "journal.jsonl").read_text().splitlines()
    denied = [entry for entry in map(json.loads, lines) if entry["event"] == "denied"]
    assert [entry["plugin"] for entry in denied] == ["sample"]
    assert "10.1.2.3" in denied[0]["detail"]
    assert "sample: denied: connecting to 10.1.2.3" in caplog.text


def test_redirects_lead_nowhere_else(reach: Reach, serve: Serve) -> None:
    port, other = serve(), serve()
    code = (
        f"import urllib.request as u; u.urlopen(f'http://{{host}}:{{port}}/to/{{host}}:{other}/x')"
    )
    kind, _, text = reach(f"127.0.0.1:{port}").call("attempt", code, "127.0.0.1", port)
    assert kind == "URLError"
    assert f"port {other}, is not granted" in text


def test_nobody_listens(reach: Reach) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
    kind, number, _ = reach(f"127.0.0.1:{port}").call(
        "attempt", "socket.create_connection((host, port), 5)", "127.0.0.1", port
    )
    assert (kind, number) == ("ConnectionRefusedError", 111)


def test_garbage_at_the_desk_ends_the_plugin(reach: Reach, serve: Serve) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    plugin.call("attempt", "os.write(6, b'garbage')", "", 0)
    assert plugin._process.ended.wait(10)
    assert plugin.cause == "protocol-violation"


def test_over_tls_with_an_authority_of_ones_own(reach: Reach, serve: Serve, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    port = serve(certificate.context())
    plugin = reach(f"localhost:{port}")
    assert plugin.call("ask_tls", "localhost", port, certificate.authority) == "hello"


def test_a_socket_is_connected_once(reach: Reach, serve: Serve) -> None:
    port = serve()
    code = """
made = socket.create_connection((host, port), 5)
made.connect((host, port))
"""
    plugin = reach(f"127.0.0.1:{port}")
    kind, number, _ = plugin.call("attempt", code, "127.0.0.1", port)
    assert (kind, number) == ("OSError", errno.EISCONN)
    assert plugin.usage().connections == 1


def test_no_more_are_open_than_it_has_descriptors_for(reach: Reach, serve: Serve) -> None:
    port = serve()
    code = """
kept = []
while len(kept) < 64:
    kept.append(socket.create_connection((host, port), 5))
"""
    plugin = reach(f"127.0.0.1:{port}", descriptors=32)
    kind, number, _ = plugin.call("attempt", code, "127.0.0.1", port)
    assert (kind, number) == ("OSError", errno.EMFILE)
    assert plugin.call("ask", "plain_socket", "127.0.0.1", port) == "hello"


# -- bytes, counted and bounded -------------------------------------------------------------------

MANY = 200_000
counted = pytest.mark.skipif(not meter.is_available(), reason="the kernel does not tell of them")


@counted
def test_bytes_are_counted_of_short_connections_too(reach: Reach, serve: Serve) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    for _ in range(5):
        assert plugin.call("fetch", "127.0.0.1", port, MANY) == MANY
    # Beside the body, a header each way, and the other side's end.
    assert eventually(lambda: plugin.usage().network_bytes_received > 5 * MANY)
    usage = plugin.usage()
    assert usage.connections == 5
    assert usage.network_bytes_received < 5 * (MANY + 1_000)
    assert 5 * 40 < usage.network_bytes_sent < 5 * 1_000


@counted
def test_bytes_are_counted_of_an_open_connection(reach: Reach, serve: Serve) -> None:
    code = """
global kept
kept = socket.create_connection((host, port), 5)
kept.sendall(b"GET /bytes/100000 HTTP/1.1\\r\\n\\r\\n")
left = 100_000
while left > 0:
    left -= len(kept.recv(min(left, 65536)))
"""
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    assert plugin.call("attempt", code, "127.0.0.1", port)[0] == ""
    # It is closed when the attempt is over, and the kernel's last word comes a moment later.
    assert eventually(lambda: 100_000 <= plugin.usage().network_bytes_received < 101_000)


@counted
def test_too_many_bytes_in_a_minute_end_it(reach: Reach, serve: Serve) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}", network_bytes_per_minute="1 MiB")
    limits = {one.name: one for one in plugin.receipt.limits}
    assert limits["network_bytes_per_minute"].value == "1 MiB in any 60 s"
    assert plugin.call("fetch", "127.0.0.1", port, MANY) == MANY
    with pytest.raises(BudgetExceededError, match=r"network_bytes_per_minute"):
        plugin.call("fetch_on", "127.0.0.1", port, MANY)
    assert plugin._process.ended.wait(10)
    assert plugin.cause == "network"


@pytest.mark.usefixtures("host")
def test_a_limit_on_bytes_is_told_where_there_are_connections(load: Load) -> None:
    assert "network_bytes_per_minute" not in {one.name for one in load().receipt.limits}

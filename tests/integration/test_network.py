"""A plugin reaches what it requested and was granted, by the clients that programs use."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.errors import AdmissionError, OperationError
from sandbox_host.model import Permissions
from tests.support.host import Workshop

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


class Handler(http.server.BaseHTTPRequestHandler):
    """Says hello, or sends elsewhere."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", "http://" + self.path.removeprefix("/to/"))
            self.end_headers()
            return
        body = b"hello"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


Serve = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on the loopback; return their ports."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def started(context: ssl.SSLContext | None = None) -> int:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    yield started
    for server in servers:
        server.shutdown()
        server.server_close()


Reach = Callable[..., BlockingPlugin]


@pytest.fixture
def reach(workshop: Workshop) -> Iterator[Reach]:
    """Load a plugin that requested these endpoints and was granted them."""
    hosts: list[Any] = []

    def loaded(*entries: str) -> BlockingPlugin:
        config = workshop.config(grants={"sample": Permissions(network=entries)})
        host = SandboxHost.blocking(config)
        host.__enter__()
        hosts.append(host)
        return host.load(
            workshop.write(CLIENTS, permissions={"network": list(entries), "threads": True})
        )

    yield loaded
    for host in hosts:
        host.__exit__(None, None, None)


@pytest.mark.parametrize("client", NAMES)
def test_granted_by_address(reach: Reach, serve: Serve, client: str) -> None:
    port = serve()
    assert reach(f"127.0.0.1:{port}").call("ask", client, "127.0.0.1", port) == "hello"


@pytest.mark.parametrize("client", NAMES)
def test_granted_by_name(reach: Reach, serve: Serve, client: str) -> None:
    port = serve()
    assert reach(f"localhost:{port}").call("ask", client, "localhost", port) == "hello"


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
    "datagrams": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
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
def test_nothing_else(reach: Reach, serve: Serve, name: str) -> None:
    port = serve()
    plugin = reach(f"127.0.0.1:{port}")
    kind, number, text = plugin.call("attempt", ATTEMPTS[name], "127.0.0.1", port)
    assert (kind, number) == ("PermissionError", 1), text
    assert plugin.call("ask", "plain_socket", "127.0.0.1", port) == "hello"


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
    certificate, authority = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    port = serve(context)
    assert reach(f"localhost:{port}").call("ask_tls", "localhost", port, authority) == "hello"


def make_certificate(directory: Path) -> tuple[Path, str]:
    """Write a key with a certificate for localhost, which is its own authority."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = directory / "server.pem"
    path.write_bytes(private + public)
    return path, public.decode()

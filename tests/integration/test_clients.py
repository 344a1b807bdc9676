"""Clients that programs use, unchanged in the sandbox: of the web, also by TLS, and of a database.

They are imported from a plugin environment of their own; servers are on the loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import BlockingPlugin, SandboxHost
from sandbox_host.errors import OperationError
from tests.support import postgres
from tests.support.client_env import client_environment
from tests.support.host import Workshop
from tests.support.web import make_certificate, web_server

pytestmark = [pytest.mark.needs("landlock", "seccomp"), pytest.mark.timeout(120)]

WEB = """
import asyncio, http.client, socket, ssl, urllib.request

def trusting(authority):
    return ssl.create_default_context(cadata=authority) if authority else None

def address_of(host, port, authority, path="/hello"):
    return f"{'https' if authority else 'http'}://{host}:{port}{path}"

def ask_urllib(host, port, authority):
    url = address_of(host, port, authority)
    with urllib.request.urlopen(url, timeout=20, context=trusting(authority)) as answer:
        return answer.read()

def ask_http_client(host, port, authority):
    kind, more = http.client.HTTPConnection, {}
    if authority:
        kind, more = http.client.HTTPSConnection, {"context": trusting(authority)}
    connection = kind(host, port, timeout=20, **more)
    connection.request("GET", "/hello")
    return connection.getresponse().read()

def ask_socket(host, port, authority):
    made = socket.create_connection((host, port), timeout=20)
    if authority:
        made = trusting(authority).wrap_socket(made, server_hostname=host)
    with made, made.makefile("rwb") as file:
        file.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        file.flush()
        return file.read().rpartition(b"\\r\\n\\r\\n")[2]

def ask_ssl_first(host, port, authority):
    made = socket.socket()
    if authority:
        made = trusting(authority).wrap_socket(made, server_hostname=host)
    made.settimeout(20)
    made.connect((host, port))
    with made, made.makefile("rwb") as file:
        file.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        file.flush()
        return file.read().rpartition(b"\\r\\n\\r\\n")[2]

def ask_asyncio(host, port, authority):
    async def ask():
        reader, writer = await asyncio.open_connection(host, port, ssl=trusting(authority))
        writer.writelines([b"GET /hello HTTP/1.0\\r\\n", b"\\r\\n"])
        answer = await reader.read()
        writer.close()
        return answer.rpartition(b"\\r\\n\\r\\n")[2]
    return asyncio.run(asyncio.wait_for(ask(), 20))

def ask_requests(host, port, authority):
    import requests
    known = True
    if authority:
        known = context().scratch_dir + "/authority.pem"
        with open(known, "w") as file:
            file.write(authority)
    with requests.Session() as session:
        first = session.get(address_of(host, port, authority), timeout=20, verify=known)
        return session.get(first.url, timeout=20, verify=known).content

def ask_httpx(host, port, authority):
    import httpx
    with httpx.Client(verify=trusting(authority) or True, timeout=20) as client:
        return client.get(address_of(host, port, authority)).content

def ask_httpx_async(host, port, authority):
    import httpx
    async def ask():
        async with httpx.AsyncClient(verify=trusting(authority) or True, timeout=20) as client:
            url = address_of(host, port, authority)
            answers = await asyncio.gather(*(client.get(url) for _ in range(3)))
            return answers[-1].content
    return asyncio.run(ask())

@operation
def ask(client, host, port, authority=""):
    return bytes(globals()["ask_" + client](host, port, authority)).decode()

@operation
def redirected(client, host, port, to):
    url = f"http://{host}:{port}/to/{to}"
    if client == "requests":
        import requests as it
        return it.get(url, timeout=20).text
    if client == "httpx":
        import httpx as it
        return it.get(url, timeout=20, follow_redirects=True).text
    return urllib.request.urlopen(url, timeout=20).read().decode()
"""
CLIENTS = (
    *("socket", "ssl_first", "http_client", "urllib", "asyncio"),
    *("requests", "httpx", "httpx_async"),
)


class Web:
    """A plugin, with a server without TLS, one with it, and one that is not granted."""

    def __init__(self, plugin: BlockingPlugin, ports: tuple[int, int, int], authority: str) -> None:
        self.plugin = plugin
        self.plain, self.tls, self.other = ports
        self.authority = authority


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """Load the plugin once; it was granted the loopback by both its names."""
    environment = client_environment("requests", "httpx")
    root = tmp_path_factory.mktemp("clients of the web")
    certificate = make_certificate(root)
    with ExitStack() as stack:
        plain, other = (stack.enter_context(web_server()) for _ in range(2))
        tls = stack.enter_context(web_server(certificate.context()))
        entries = [f"{host}:{port}" for host in ("localhost", "127.0.0.1") for port in (plain, tls)]
        permissions = {"network": entries, "threads": True}
        workshop = Workshop(root)
        config = workshop.config(grants={"sample": permissions}, plugin_environment=environment)
        host = stack.enter_context(SandboxHost.blocking(config))
        plugin = host.load(workshop.write(WEB, permissions=permissions))
        yield Web(plugin, (plain, tls, other), certificate.authority)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("client", CLIENTS)
def test_web(web: Web, client: str, host: str) -> None:
    assert web.plugin.call("ask", client, host, web.plain) == "hello"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("client", CLIENTS)
def test_over_tls(web: Web, client: str, host: str) -> None:
    assert web.plugin.call("ask", client, host, web.tls, web.authority) == "hello"


@pytest.mark.parametrize("client", CLIENTS)
def test_another_port_is_refused_in_words(web: Web, client: str) -> None:
    with pytest.raises(OperationError) as caught:
        web.plugin.call("ask", client, "127.0.0.1", web.other)
    told = f'"permissions": {{"network": ["127.0.0.1:{web.other}"]}}'
    assert told in f"{caught.value}\n{caught.value.traceback_text}"


@pytest.mark.parametrize("client", ["urllib", "requests", "httpx"])
def test_a_redirect_leads_nowhere_else(web: Web, client: str) -> None:
    here, there = f"127.0.0.1:{web.plain}/hello", f"127.0.0.1:{web.other}/hello"
    assert web.plugin.call("redirected", client, "127.0.0.1", web.plain, here) == "hello"
    with pytest.raises(OperationError) as caught:
        web.plugin.call("redirected", client, "127.0.0.1", web.plain, there)
    assert f"port {web.other}, is not granted" in f"{caught.value}\n{caught.value.traceback_text}"


def test_the_certificate_decides_and_not_the_sandbox(web: Web, tmp_path: Path) -> None:
    another = make_certificate(tmp_path).authority
    with pytest.raises(OperationError, match="CERTIFICATE_VERIFY_FAILED"):
        web.plugin.call("ask", "urllib", "localhost", web.tls, another)


DATABASE = """
from contextlib import closing

QUERIES = (
    "CREATE TEMPORARY TABLE days (day integer, high double precision)",
    "INSERT INTO days SELECT n, n * 1.5 FROM generate_series(1, 1000) AS n",
    "SELECT count(*), sum(high) FROM days",
)

def answer(connection):
    cursor = connection.cursor()
    for query in QUERIES:
        cursor.execute(query)
    return [float(value) for value in cursor.fetchone()]

@operation
def pure_python(host, port, user, password, authority):
    import pg8000.dbapi, ssl
    more = {"ssl_context": ssl.create_default_context(cadata=authority)} if authority else {}
    made = pg8000.dbapi.connect(
        user, host=host, port=port, password=password, database="postgres", timeout=20, **more
    )
    with closing(made) as connection:
        return answer(connection)

@operation
def native(where, port, user, password):
    import psycopg
    made = psycopg.connect(
        host=where, port=port, user=user, password=password, dbname="postgres", connect_timeout=20
    )
    with closing(made) as connection:
        return [psycopg.pq.__impl__, *answer(connection)]
"""
SUMS = [1000.0, 750_750.0]
AS_USER = (postgres.USER, postgres.PASSWORD)

needs_postgres = pytest.mark.skipif(postgres.programs() is None, reason="no PostgreSQL here")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[postgres.Server, str]]:
    """Start a PostgreSQL that offers TLS; return it with its authority."""
    certificate = make_certificate(tmp_path_factory.mktemp("certificate"))
    with postgres.postgres(certificate.path) as server:
        yield server, certificate.authority


def load(stack: ExitStack, workshop: Workshop, **permissions: Any) -> BlockingPlugin:
    """Load the plugin with what it asks for."""
    environment = client_environment("pg8000", "psycopg", "psycopg_binary")
    config = workshop.config(grants={"sample": permissions}, plugin_environment=environment)
    host = stack.enter_context(SandboxHost.blocking(config))
    return host.load(workshop.write(DATABASE, permissions=permissions))


@needs_postgres
def test_database_by_a_client_in_python(
    workshop: Workshop, database: tuple[postgres.Server, str]
) -> None:
    server, authority = database
    with ExitStack() as stack:
        plugin = load(stack, workshop, network=[f"localhost:{server.port}"])
        for known in ("", authority):
            found = plugin.call("pure_python", "localhost", server.port, *AS_USER, known)
            assert found == SUMS
        with pytest.raises(OperationError, match="not granted"):
            plugin.call("pure_python", "127.0.0.2", server.port, *AS_USER, "")
        assert plugin.usage().connections == 2


@needs_postgres
@pytest.mark.needs("own-root", "network-namespace")
def test_database_by_libpq(workshop: Workshop, database: tuple[postgres.Server, str]) -> None:
    server, _ = database
    with ExitStack() as stack:
        plugin = load(stack, workshop, unix=[server.socket])
        found = plugin.call("native", server.directory, server.port, *AS_USER)
        assert found == ["binary", *SUMS]
        # And by nothing else: the same server's other door is shut.
        with pytest.raises(OperationError, match="OperationalError"):
            plugin.call("native", "127.0.0.1", server.port, *AS_USER)


@needs_postgres
def test_libpq_has_nothing_of_connections_over_tcp(
    workshop: Workshop, database: tuple[postgres.Server, str]
) -> None:
    """It is C, and connects by itself: what the host hands over is for Python."""
    server, _ = database
    with ExitStack() as stack:
        plugin = load(stack, workshop, network=[f"127.0.0.1:{server.port}"])
        with pytest.raises(OperationError, match="OperationalError"):
            plugin.call("native", "127.0.0.1", server.port, *AS_USER)
        with pytest.raises(OperationError, match="OperationalError"):
            plugin.call("native", server.directory, server.port, *AS_USER)

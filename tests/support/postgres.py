"""A PostgreSQL of the test's own: as an ordinary user, on the loopback and a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.traces import eventually

USER, PASSWORD, DATABASE = "weather", "sunny and mild", "postgres"

_NOBODY = 65_534
_READY_SECONDS = 30.0
_ENDING_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """A server that takes connections; everybody needs `USER` and `PASSWORD`.

    Attributes:
        port: on 127.0.0.1, with and without TLS.
        directory: of its Unix socket, which is how clients name it.
        socket: the socket itself, which is what is granted.
    """

    port: int
    directory: str
    socket: str


def programs() -> Path | None:
    """Return the directory of PostgreSQL's programs, which Debian does not put into PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(named).resolve().parent if named else None


@contextmanager
def postgres(certificate: Path | None = None) -> Iterator[Server]:
    """Make a database cluster, start its server, and yield it.

    Args:
        certificate: key and certificate in one file, to offer TLS.
    """
    bin_dir = programs()
    assert bin_dir is not None
    with tempfile.TemporaryDirectory(prefix="sandbox host postgres ") as name:
        root = Path(name)
        root.chmod(0o755)
        own = root / "own"
        own.mkdir(mode=0o755)
        options = ["-c", "ssl=off"]
        if certificate is not None:
            shutil.copyfile(certificate, own / "server.pem")
            (own / "server.pem").chmod(0o600)
            path = own / "server.pem"
            options = ["-c", "ssl=on", "-c", f"ssl_cert_file={path}", "-c", f"ssl_key_file={path}"]
        (own / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (own, *own.iterdir()):
                os.chown(path, _NOBODY, _NOBODY)
        _make_cluster(bin_dir, own)
        with _serving(bin_dir, own, options) as server:
            yield server


def _as_somebody() -> dict[str, Any]:
    """Return how to run what refuses to run as root."""
    somebody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
    plain = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    return {"env": plain, "cwd": "/", **(somebody if os.geteuid() == 0 else {})}


def _make_cluster(bin_dir: Path, own: Path) -> None:
    options = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"]
    subprocess.run(
        [bin_dir / "initdb", "-D", own / "data", "-U", USER, f"--pwfile={own}/password", *options],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
        **_as_somebody(),
    )


@contextmanager
def _serving(bin_dir: Path, own: Path, options: list[str]) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": f'"{own}"',
        "fsync": "off",
    }
    given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (own / "log").open("w") as log:
        process = subprocess.Popen(
            [bin_dir / "postgres", "-D", own / "data", *given, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **_as_somebody(),
        )
    try:
        state = own / "data" / "postmaster.pid"
        ready = eventually(
            lambda: state.exists() and state.read_text().rstrip().endswith("ready"),
            seconds=_READY_SECONDS,
        )
        assert ready, (own / "log").read_text()
        yield Server(port, str(own), f"{own}/.s.PGSQL.{port}")
    finally:
        process.send_signal(signal.SIGINT)  # "fast": clients that are there are sent away
        try:
            process.wait(_ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

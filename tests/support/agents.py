"""Agents for SSH keys: the real one, started for a test, and one that answers what it is told."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from sandbox_host.bundle.keys import save_private_key
from sandbox_host.bundle.signature import PrivateKey
from tests.support.foreign_tools import run_tool
from tests.support.traces import eventually


class RealAgent:
    """A running ``ssh-agent`` that listens at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def environment(self) -> dict[str, str]:
        return {"SSH_AUTH_SOCK": str(self.path), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}

    def add(self, key: PrivateKey, comment: str, *options: str) -> None:
        """Have the agent keep `key`, with OpenSSH's own tool."""
        # A key without a comment gets the name of its file.
        save_private_key(key, self.path.parent / comment)
        self._add(comment, *options)

    def add_of_another_kind(self) -> None:
        """Have the agent keep a key that cannot sign plugins."""
        file = self.path.parent / "ecdsa"
        run_tool(file.parent, "ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", file)
        self._add(file.name)

    def _add(self, *arguments: str) -> None:
        done = subprocess.run(
            ["ssh-add", *arguments],
            cwd=self.path.parent,
            env=self.environment,
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def real_agent() -> Iterator[RealAgent]:
    """Run ``ssh-agent`` on a socket of its own, and end it afterwards."""
    # Not pytest's directory, whose path may be longer than a socket's may be.
    with tempfile.TemporaryDirectory(prefix="agent ") as directory:
        path = Path(directory, "socket")
        with subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                assert eventually(path.exists)
                yield RealAgent(path)
            finally:
                process.terminate()


@contextlib.contextmanager
def scripted_agent(*answers: bytes, hold: bool = False) -> Iterator[str]:
    """Listen as an agent would; each connection gets the next answer, byte for byte.

    Args:
        answers: what is sent, whatever was asked.
        hold: keep the connections open after that.
    """
    held: list[socket.socket] = []
    with (
        tempfile.TemporaryDirectory(prefix="agent ") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = f"{directory}/socket"
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                connection.recv(1 << 20)
                held.append(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(answer)
                if not hold:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield path
        finally:
            thread.join(timeout=20)
            for connection in held:
                connection.close()

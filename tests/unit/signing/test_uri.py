from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_host.bundle.public_keys import fingerprint
from sandbox_host.bundle.sign import Signer
from sandbox_host.errors import SignerError, UsageError
from sandbox_host.signing.program import ProgramSigner
from sandbox_host.signing.ssh_wire import string, u32
from sandbox_host.signing.uri import Scheme, SignerUri, open_signer, parse_uri
from tests.support.agents import real_agent, scripted_agent
from tests.support.bundles import make_key
from tests.support.foreign_tools import needs_tool

KEY, OTHER = make_key(1), make_key(2)


@pytest.mark.parametrize(
    ("text", "scheme", "rest"),
    [
        ("release.key", Scheme.FILE, "release.key"),
        ("/a b/release.key", Scheme.FILE, "/a b/release.key"),
        ("./exec:odd", Scheme.FILE, "./exec:odd"),
        ("C:\\keys\\release.key", Scheme.FILE, "C:\\keys\\release.key"),
        ("Exec:x", Scheme.FILE, "Exec:x"),
        ("file:exec:odd", Scheme.FILE, "exec:odd"),
        ("ssh-agent:", Scheme.AGENT, ""),
        ("ssh-agent:SHA256:ab/+", Scheme.AGENT, "SHA256:ab/+"),
        ("exec:sign 'a b'", Scheme.PROGRAM, "sign 'a b'"),
    ],
)
def test_uris(text: str, scheme: Scheme, rest: str) -> None:
    assert parse_uri(text) == SignerUri(scheme, rest)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pkcs11:token=x", "no scheme 'pkcs11'"),
        ("https://example.org/key", "no scheme 'https'"),
        ("file:", "names no file"),
        ("", "names no file"),
    ],
)
def test_what_is_none(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_uri(text)
    assert caught.value.remedy


def opened(text: str, path: str = "", public: bytes | None = None) -> Signer:
    return open_signer(
        text,
        open_file=lambda file: KEY if file == Path("release.key") else OTHER,
        environ={"SSH_AUTH_SOCK": path},
        public=public,
    )


def test_a_file_is_opened_as_it_is_told() -> None:
    assert opened("release.key") is KEY
    assert opened("file:release.key", public=KEY.public) is KEY
    assert opened("other.key") is OTHER


def test_a_key_that_is_not_the_one_that_is_meant() -> None:
    with pytest.raises(UsageError) as caught:
        opened("other.key", public=KEY.public)
    assert KEY.key_id in caught.value.message
    assert OTHER.key_id in caught.value.message


def test_a_program_needs_its_public_key() -> None:
    signer = opened("exec:sign", public=KEY.public)
    assert isinstance(signer, ProgramSigner)
    assert signer.public == KEY.public
    with pytest.raises(UsageError, match="does not say whose"):
        opened("exec:sign")


def test_without_an_agent() -> None:
    with pytest.raises(SignerError, match="not set"):
        opened("ssh-agent:")


def test_an_agent_without_keys() -> None:
    with (
        scripted_agent(string(b"\x0c" + u32(0))) as path,
        pytest.raises(SignerError, match="has no Ed25519 key"),
    ):
        opened("ssh-agent:", path)


@needs_tool("ssh-agent", "ssh-add")
def test_a_key_of_a_real_agent() -> None:
    with real_agent() as agent:
        agent.add(KEY, "one")
        path = str(agent.path)
        assert opened("ssh-agent:", path).public == KEY.public
        agent.add(OTHER, "two")
        assert opened("ssh-agent:two", path).public == OTHER.public
        assert opened(f"ssh-agent:{fingerprint(OTHER.public)}", path).public == OTHER.public
        assert opened("ssh-agent:", path, OTHER.public).public == OTHER.public
        with pytest.raises(SignerError, match="has 2 Ed25519 keys"):
            opened("ssh-agent:", path)
        with pytest.raises(UsageError, match="--public-key"):
            opened("ssh-agent:one", path, OTHER.public)
        with pytest.raises(SignerError, match="no Ed25519 keys called"):
            opened("ssh-agent:", path, make_key(3).public)

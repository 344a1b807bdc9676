from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.public_keys import fingerprint, openssh_blob
from sandbox_host.bundle.signature import signature_fault
from sandbox_host.errors import SignerError
from sandbox_host.signing.agent import (
    MAX_KEYS,
    MAX_MESSAGE_BYTES,
    AgentKey,
    AgentSigner,
    find_key,
    list_keys,
    parse_identities,
    parse_signature,
    socket_of,
)
from sandbox_host.signing.ssh_wire import WireError, string, u32
from tests.support.agents import RealAgent, real_agent, scripted_agent
from tests.support.bundles import make_key
from tests.support.foreign_tools import needs_tool

A, B = make_key(1), make_key(2)
KEY_A, KEY_B = AgentKey(A.public, "alice"), AgentKey(B.public, "bob")


# -- a real agent ------------------------------------------------------------------------------


@pytest.fixture
def agent() -> Iterator[RealAgent]:
    with real_agent() as started:
        yield started


@needs_tool("ssh-agent", "ssh-add", "ssh-keygen")
def test_a_real_agent_lists_and_signs(agent: RealAgent) -> None:
    assert list_keys(str(agent.path)) == []
    agent.add(A, "alice@example")
    agent.add_of_another_kind()
    agent.add(B, "bob")
    keys = list_keys(str(agent.path))
    assert keys == [AgentKey(A.public, "alice@example"), KEY_B]
    signer = AgentSigner(find_key(keys, "bob"), str(agent.path))
    message = b"message" * 10_000
    assert signer.public == B.public
    assert not signature_fault(B.public, signer.sign(message), message)


@needs_tool("ssh-agent", "ssh-add")
def test_a_real_agent_that_refuses(agent: RealAgent) -> None:
    """It has no such key; so it answers to one that was removed, too."""
    agent.add(A, "alice")
    signer = AgentSigner(KEY_B, str(agent.path))
    with pytest.raises(SignerError, match="the agent refused"):
        signer.sign(b"message")


def test_a_message_that_no_agent_takes() -> None:
    signer = AgentSigner(KEY_A, "/nowhere")
    with pytest.raises(SignerError, match="at most 256 KiB") as caught:
        signer.sign(bytes(MAX_MESSAGE_BYTES))
    assert "exec:" in caught.value.remedy


# -- agents that misbehave ---------------------------------------------------------------------

SIGNATURE = bytes(range(64))
ANSWER = b"\x0e" + string(string(b"ssh-ed25519") + string(SIGNATURE))


def identities(*entries: bytes, count: int | None = None) -> bytes:
    return b"\x0c" + u32(len(entries) if count is None else count) + b"".join(entries)


def entry(public: bytes, comment: bytes = b"") -> bytes:
    return string(openssh_blob(public)) + string(comment)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(b"", "hung up", id="nothing"),
        pytest.param(b"\0\0", "hung up", id="half a length"),
        pytest.param(u32(9) + b"\x0e", "hung up", id="half an answer"),
        pytest.param(u32(0), "an answer of 0 bytes", id="an empty answer"),
        pytest.param(b"\xff\xff\xff\xff", "an answer of 4294967295 bytes", id="too long"),
        pytest.param(u32(MAX_MESSAGE_BYTES + 1), "262145 bytes", id="one byte too long"),
        pytest.param(string(b"\x05"), "the agent refused", id="failure"),
        pytest.param(string(b"\x0c"), "of type 12 instead of 14", id="another answer"),
        pytest.param(string(ANSWER + b"x"), "1 bytes too many", id="more"),
        pytest.param(string(ANSWER[:-1]), "too early", id="less"),
    ],
)
def test_answers_that_are_no_signature(answer: bytes, words: str) -> None:
    with (
        scripted_agent(answer) as path,
        pytest.raises(SignerError, match="cannot be used") as caught,
    ):
        AgentSigner(KEY_A, path).sign(b"message")
    assert words in caught.value.message
    assert caught.value.remedy


def test_a_scripted_agent_can_be_good() -> None:
    with scripted_agent(string(ANSWER), string(identities(entry(A.public, b"alice")))) as path:
        assert AgentSigner(KEY_A, path).sign(b"message") == SIGNATURE
        assert list_keys(path) == [KEY_A]


@pytest.mark.parametrize(("answer", "looks"), [(b"", 2), (u32(100)[:2], 3), (u32(100) + b"x", 4)])
def test_an_agent_that_is_slow_has_one_deadline_for_all(answer: bytes, looks: int) -> None:
    """Bytes that come now and then do not prolong it: the clock is looked at before each."""
    clock = itertools.chain(map(float, range(looks)), itertools.repeat(1_000.0))
    with (
        scripted_agent(answer, hold=True) as path,
        pytest.raises(SignerError, match="did not answer in time"),
    ):
        AgentSigner(KEY_A, path, lambda: next(clock)).sign(b"message")


@pytest.mark.parametrize("path", ["/nowhere/socket", "x" * 200, ""])
def test_an_agent_that_is_not_there(path: str) -> None:
    with pytest.raises(SignerError, match="cannot be used"):
        list_keys(path)


def test_the_environment_says_where_it_is() -> None:
    assert socket_of({"SSH_AUTH_SOCK": "/a/b"}) == "/a/b"
    for environ in ({}, {"SSH_AUTH_SOCK": ""}):
        with pytest.raises(SignerError, match="not set"):
            socket_of(environ)


# -- parsers -----------------------------------------------------------------------------------


def test_only_plain_ed25519_keys_are_seen() -> None:
    other = string(string(b"ssh-rsa") + string(b"\x03") + string(b"\x00" * 256)) + string(b"rsa")
    hardware = string(string(b"sk-ssh-ed25519@openssh.com") + string(A.public)) + string(b"sk")
    longer = string(openssh_blob(A.public) + b"\0") + string(b"longer")
    answer = identities(other, hardware, longer, string(b"") + string(b""), entry(B.public, b"bob"))
    assert parse_identities(answer) == [KEY_B]


def test_a_comment_is_made_harmless() -> None:
    (key,) = parse_identities(identities(entry(A.public, b"\x1b[2J\n::error\xff" + b"x" * 500)))
    assert str(key).isprintable()
    assert len(key.comment) <= 120


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (identities(count=MAX_KEYS + 1), "more than 2000"),
        (identities(count=1), "too early"),
        (identities(entry(A.public), count=0), "too many"),
        (b"\x05", "the agent refused"),
        (b"", "too early"),
    ],
)
def test_lists_of_another_shape(answer: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        parse_identities(answer)


@pytest.mark.parametrize(
    "inner",
    [
        string(b"ssh-rsa") + string(SIGNATURE),
        string(b"ssh-ed25519") + string(SIGNATURE[:-1]),
        string(b"ssh-ed25519") + string(SIGNATURE + b"x"),
    ],
    ids=["another kind", "short", "long"],
)
def test_signatures_of_another_shape(inner: bytes) -> None:
    assert parse_signature(ANSWER) == SIGNATURE
    with pytest.raises(WireError, match="not an Ed25519 signature"):
        parse_signature(b"\x0e" + string(inner))


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x0c", b"\x0e", identities(count=2)]))
def test_any_bytes_to_both_parsers(data: bytes, start: bytes) -> None:
    for parse in (parse_identities, parse_signature):
        try:
            parse(start + data)
        except WireError as error:
            assert str(error).isprintable()  # noqa: PT017 - nearly all of them are refused


# -- the choice --------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [fingerprint(B.public), B.key_id, "bob"])
def test_a_key_is_found_by_each_of_its_names(wanted: str) -> None:
    assert find_key([KEY_A, KEY_B], wanted) == KEY_B


def test_the_only_key_needs_no_name() -> None:
    assert find_key([KEY_A], "") == KEY_A


@pytest.mark.parametrize(
    ("keys", "wanted", "words"),
    [
        ([KEY_A, KEY_B], "", "has 2 Ed25519 keys; it offers"),
        ([KEY_A, KEY_B], "carol", "has no Ed25519 keys called 'carol'"),
        ([KEY_A, AgentKey(B.public, "alice")], "alice", "has 2 Ed25519 keys called 'alice'"),
        ([], "", "none at all"),
    ],
)
def test_choices_that_are_none(keys: list[AgentKey], wanted: str, words: str) -> None:
    with pytest.raises(SignerError) as caught:
        find_key(keys, wanted)
    assert words in caught.value.message
    assert all(fingerprint(key.public) in caught.value.message for key in keys)

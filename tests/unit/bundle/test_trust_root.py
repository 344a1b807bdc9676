"""A store that belongs to a root key: what loads, and what does not."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.bundle.envelope import pre_authentication_encoding
from sandbox_host.bundle.public_keys import format_public_key
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.trust_root import (
    RootSignature,
    good_signature,
    parse_signatures,
    pin_path,
    read_pin,
    render_signatures,
    signature_path,
    store_message,
)
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import make_key, store_text

ROOT, OTHER, KEY = make_key(1), make_key(2), make_key(3)
STORE = f"version = 3\n{store_text(KEY)}".encode()


def signed(key: PrivateKey, data: bytes = STORE) -> RootSignature:
    return RootSignature(key.key_id, key.sign(store_message(data)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store that its root signed, and that is held to it."""
    directory = tmp_path / "trust"
    directory.mkdir(mode=0o700)
    file = directory / "trust.toml"
    for target, data in (
        (file, STORE),
        (signature_path(file), render_signatures([signed(ROOT)])),
        (pin_path(file), f"{format_public_key(ROOT.public)}\n".encode()),
    ):
        target.write_bytes(data)
        target.chmod(0o600)
    return file


def refused(path: Path) -> str:
    with pytest.raises(TrustStoreError) as caught:
        TrustStore.load(path)
    assert caught.value.remedy
    return caught.value.message


def test_a_signed_store_is_loaded(path: Path) -> None:
    store = TrustStore.load(path)
    assert KEY.key_id in store.keys
    assert store.mark.root == ROOT.key_id
    assert (store.version, store.mark.version) == (3, 3)


def test_without_a_pin_a_signature_says_nothing(path: Path) -> None:
    pin_path(path).unlink()
    assert TrustStore.load(path).mark.root == ""
    signature_path(path).write_bytes(b"anything")
    assert TrustStore.load(path)


def _edit(path: Path) -> None:
    path.write_bytes(STORE + b"# more\n")


def _unsign(path: Path) -> None:
    signature_path(path).unlink()


def _foreign(path: Path) -> None:
    signature_path(path).write_bytes(render_signatures([signed(OTHER)]))


def _renamed(path: Path) -> None:
    forged = RootSignature(ROOT.key_id, signed(OTHER).value)
    signature_path(path).write_bytes(render_signatures([forged]))


def _as_a_plugin(path: Path) -> None:
    value = ROOT.sign(pre_authentication_encoding(STORE))
    signature_path(path).write_bytes(render_signatures([RootSignature(ROOT.key_id, value)]))


def _bare(path: Path) -> None:
    signature_path(path).write_bytes(
        render_signatures([RootSignature(ROOT.key_id, ROOT.sign(STORE))])
    )


def _other_root(path: Path) -> None:
    pin_path(path).write_text(format_public_key(OTHER.public))


@pytest.mark.parametrize(
    "tamper", [_edit, _unsign, _foreign, _renamed, _as_a_plugin, _bare, _other_root]
)
def test_what_the_root_did_not_sign_is_no_store(path: Path, tamper: object) -> None:
    assert callable(tamper)
    tamper(path)
    assert "is not signed by the root key" in refused(path)


def test_the_signature_is_checked_before_the_store_is_parsed(path: Path) -> None:
    path.write_bytes(b"[[key")
    assert "is not signed by the root key" in refused(path)


def test_a_pin_that_cannot_be_used_is_not_passed_over(path: Path) -> None:
    pin = pin_path(path)
    weak = base64.b64encode((1).to_bytes(32, "little"))
    for content, words in ((b"", "cannot be read"), (weak, "small order"), (b"x" * 2000, "larger")):
        pin.write_bytes(content)
        assert words in refused(path)
    pin.unlink()
    pin.symlink_to(path)
    assert "symbolic link" in refused(path)
    pin.unlink()
    pin.symlink_to(path.parent / "nowhere")
    assert "symbolic link" in refused(path)


@pytest.mark.parametrize("which", [pin_path, signature_path], ids=["pin", "signatures"])
def test_files_that_others_may_write(path: Path, which: object) -> None:
    assert callable(which)
    which(path).chmod(0o666)
    assert "writable for its group or for others" in refused(path)


def test_other_signatures_beside_it_neither_help_nor_harm(path: Path) -> None:
    old = signed(ROOT, b"version = 2\n")
    lines = render_signatures([signed(OTHER), old, signed(ROOT)])
    signature_path(path).write_bytes(lines)
    assert TrustStore.load(path).mark.root == ROOT.key_id
    assert good_signature(ROOT.public, STORE, [old]) is None


def test_no_pin_is_told_from_one(path: Path) -> None:
    assert read_pin(path) == ROOT.public
    assert read_pin(path.with_name("other.toml")) is None


GOOD_LINE = render_signatures([signed(ROOT)])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(GOOD_LINE.rstrip(), "bytes of lines", id="no line feed"),
        pytest.param(b"", "bytes of lines", id="empty"),
        pytest.param(b"\n", "line 1", id="an empty line"),
        pytest.param(GOOD_LINE + b"\n", "line 2", id="another empty line"),
        pytest.param(GOOD_LINE.replace(b" ", b"  "), "line 1", id="two spaces"),
        pytest.param(GOOD_LINE.replace(b"ed25519", b"ed448"), "line 1", id="another algorithm"),
        pytest.param(GOOD_LINE.replace(b"\n", b"\r\n"), "line 1", id="carriage return"),
        pytest.param(GOOD_LINE.upper(), "line 1", id="upper case"),
        pytest.param(GOOD_LINE + b"# x\n", "line 2", id="a comment"),
        pytest.param(GOOD_LINE[:-4] + b"/==\n", "line 1", id="base64 that is not canonical"),
        pytest.param("é\n".encode(), "line 1", id="not ASCII"),
        pytest.param(GOOD_LINE * 17, "more than 16 lines", id="too many"),
        pytest.param(GOOD_LINE * 50, "at most 4096", id="too long"),
    ],
)
def test_signature_files_of_another_shape(data: bytes, words: str) -> None:
    with pytest.raises(TrustStoreError) as caught:
        parse_signatures(data, "trust.toml.sig")
    assert words in caught.value.message


SIGNATURES = st.lists(
    st.builds(
        RootSignature,
        st.text("0123456789abcdef", min_size=64, max_size=64),
        st.binary(min_size=64, max_size=64),
    ),
    min_size=1,
    max_size=16,
)


@given(SIGNATURES)
def test_signatures_survive_rendering_and_parsing(signatures: list[RootSignature]) -> None:
    assert list(parse_signatures(render_signatures(signatures), "x")) == signatures


@given(st.binary(max_size=200) | st.binary(max_size=40).map(lambda end: GOOD_LINE[:-9] + end))
def test_any_bytes_are_refused_or_are_in_the_one_form(data: bytes) -> None:
    try:
        parsed = parse_signatures(data, "x")
    except TrustStoreError as error:
        assert error.message.isprintable()  # noqa: PT017 - most of them are refused
        return
    assert render_signatures(parsed) == data

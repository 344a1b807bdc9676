"""What is not as it was signed is refused by name, and nothing of the plugin is executed."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, SandboxHost
from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.errors import (
    BundleError,
    ManifestError,
    RefusedError,
    UnsignedError,
    UntrustedError,
    VerificationError,
)
from tests.support.bundles import make_key, sign_directory
from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

MARKING = """
from plugin_sdk import context
with open(context().data_dir + "/executed", "w") as marker:
    marker.write("yes")
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("refused"))


@pytest.fixture(scope="module")
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    with SandboxHost.blocking(workshop.config()) as opened:
        yield opened


@pytest.fixture
def bundle(workshop: Workshop) -> Path:
    """A signed plugin that leaves a marker in its data directory when it is imported."""
    directory = workshop.write(MARKING, files={"helper.py": "X = 1\n", "data.csv": "a,b\n"})
    shutil.rmtree(workshop.data_dir("sample"), ignore_errors=True)
    return directory


def executed(workshop: Workshop) -> bool:
    return (workshop.data_dir("sample") / "executed").exists()


def check_refused(
    host: BlockingHost, workshop: Workshop, bundle: Path, kind: type[RefusedError]
) -> str:
    """Load a bundle that must be refused; return the error's text."""
    with pytest.raises(RefusedError) as caught:
        host.load(bundle)
    assert type(caught.value) is kind
    assert not workshop.data_dir("sample").exists()
    assert host.plugins == {}
    assert "refused" in workshop.config().journal_path.read_text().splitlines()[-1]
    return str(caught.value)


def test_untouched_bundle_is_executed(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    host.load(bundle)
    assert executed(workshop)
    host.unload("sample")


def test_unsigned(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    (bundle / ENVELOPE_NAME).unlink()
    assert ENVELOPE_NAME in check_refused(host, workshop, bundle, UnsignedError)


def _change_byte(bundle: Path) -> None:
    data = bytearray((bundle / "helper.py").read_bytes())
    data[-2] ^= 1
    (bundle / "helper.py").write_bytes(data)


def _add(bundle: Path) -> None:
    (bundle / "extra.py").write_text("")


def _remove(bundle: Path) -> None:
    (bundle / "helper.py").unlink()


def _rename(bundle: Path) -> None:
    (bundle / "helper.py").rename(bundle / "helped.py")


def _swap(bundle: Path) -> None:
    (bundle / "helper.py").rename(bundle / "x")
    (bundle / "data.csv").rename(bundle / "helper.py")
    (bundle / "x").rename(bundle / "data.csv")


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_change_byte, "helper.py"),
        (_add, "extra.py"),
        (_remove, "helper.py"),
        (_rename, "helped.py"),
        (_swap, "data.csv"),
    ],
)
def test_changed_files_are_named(
    host: BlockingHost,
    workshop: Workshop,
    bundle: Path,
    tamper: Callable[[Path], None],
    named: str,
) -> None:
    tamper(bundle)
    assert named in check_refused(host, workshop, bundle, VerificationError)


@pytest.mark.parametrize("target", ["helper.py", "/etc/hostname", "nowhere"])
def test_symlink(host: BlockingHost, workshop: Workshop, bundle: Path, target: str) -> None:
    os.symlink(target, bundle / "link.py")
    assert "link.py" in check_refused(host, workshop, bundle, BundleError)


def test_file_replaced_by_a_link_to_the_same_bytes(
    host: BlockingHost, workshop: Workshop, bundle: Path
) -> None:
    shutil.move(bundle / "helper.py", bundle.parent / "helper.py")
    os.symlink(bundle.parent / "helper.py", bundle / "helper.py")
    assert "helper.py" in check_refused(host, workshop, bundle, BundleError)


def test_fifo(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")
    assert "pipe" in check_refused(host, workshop, bundle, BundleError)


def test_byte_code(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    py_compile.compile(str(bundle / "helper.py"), str(bundle / "helper.pyc"))
    assert "helper.pyc" in check_refused(host, workshop, bundle, BundleError)


def test_our_own_tools_do_not_sign_byte_code(workshop: Workshop, bundle: Path) -> None:
    py_compile.compile(str(bundle / "helper.py"), str(bundle / "helper.pyc"))
    (bundle / ENVELOPE_NAME).unlink()
    with pytest.raises(BundleError, match=r"helper\.pyc"):
        sign_directory(bundle, workshop.key)


def test_unknown_key(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    stranger = make_key(99)
    (bundle / ENVELOPE_NAME).unlink()
    sign_directory(bundle, stranger)
    assert stranger.key_id in check_refused(host, workshop, bundle, UntrustedError)


def test_signature_of_another_bundle(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    other = workshop.write("X = 2")
    shutil.copy(other / ENVELOPE_NAME, bundle / ENVELOPE_NAME)
    check_refused(host, workshop, bundle, VerificationError)


def test_two_permissions_keys(host: BlockingHost, workshop: Workshop, bundle: Path) -> None:
    text = (bundle / "plugin.json").read_text().rstrip().removesuffix("}")
    twice = '"permissions": {}, "permissions": {"publish": ["x"]}}'
    (bundle / "plugin.json").write_text(f"{text}, {twice}")
    with pytest.raises(ManifestError, match="permissions"):
        sign_directory(bundle, workshop.key)
    assert "plugin.json" in check_refused(host, workshop, bundle, VerificationError)


def test_two_permissions_keys_signed_all_the_same(
    host: BlockingHost, workshop: Workshop, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that does not check its plugin.json helps nobody: the host checks again."""
    plain = json.loads((bundle / "plugin.json").read_bytes())
    twice = json.dumps(plain)[:-1] + ', "permissions": {}, "permissions": {}}'
    (bundle / "plugin.json").write_text(twice)
    (bundle / ENVELOPE_NAME).unlink()
    _sign_without_checks(bundle, workshop, monkeypatch)
    assert "permissions" in check_refused(host, workshop, bundle, ManifestError)


def _sign_without_checks(bundle: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox_host.bundle import rules
    from sandbox_host.bundle import sign as signing

    def lenient(files: dict[str, bytes]) -> object:
        data = json.dumps(json.loads(files["plugin.json"])).encode()
        return rules.check_contents({**files, "plugin.json": data})

    with monkeypatch.context() as patched:
        patched.setattr(signing, "check_contents", lenient)
        sign_directory(bundle, workshop.key)


def test_nothing_was_executed_in_this_file(host: BlockingHost, workshop: Workshop) -> None:
    lines = workshop.config().journal_path.read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    started = [entry for entry in entries if entry["event"] == "started"]
    assert len(started) <= 1
    assert host.plugins == {}


# -- between verification and start ---------------------------------------------------------------


def test_swap_after_verification_runs_the_verified_bytes(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is rewritten at the last moment before the process starts."""
    honest = "@operation\ndef who():\n    return 'verified'\n"
    bundle = workshop.write(honest, name="swapped", files={"helper.py": "X = 'verified'"})

    def rewrite_then_start(*arguments: object) -> object:
        evil = honest.replace("verified", "swapped")
        main = (bundle / "main.py").read_text()
        (bundle / "main.py").write_text(main.replace(honest, evil))
        (bundle / "added.py").write_text("raise SystemExit")
        (bundle / "plugin.json").unlink()
        return start(*arguments)

    with SandboxHost.blocking(workshop.config()) as host:
        backend = host._core._launcher._backend
        start = backend.start
        monkeypatch.setattr(backend, "start", rewrite_then_start)
        plugin = host.load(bundle)
        assert "swapped" in (bundle / "main.py").read_text()
        assert plugin.call("who") == "verified"
        assert not (plugin._process.places.package_dir / "added.py").exists()


def test_swap_while_reading_is_noticed_or_harmless(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte is read once: what a swap puts in later is either signed, or refused."""
    from sandbox_host.runtime import launch

    bundle = workshop.write("@operation\ndef who():\n    return 'verified'\n", name="swapped")
    read = launch.read_bundle

    def read_then_rewrite(path: Path) -> object:
        contents = read(path)
        for file in path.iterdir():
            file.write_text("raise SystemExit")
        return contents

    monkeypatch.setattr(launch, "read_bundle", read_then_rewrite)
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(bundle).call("who") == "verified"

"""What stands after ``--key``: a file, a key in an SSH agent, or a program.

release.key                 a private key file, OpenSSH or PKCS#8 or 32 raw bytes
file:release.key            the same; for a path that looks like one of the others
ssh-agent:                  the only Ed25519 key of the agent at $SSH_AUTH_SOCK
ssh-agent:SHA256:nThb...    the one with this fingerprint, or our key id, or this comment
exec:COMMAND ARGUMENT...    a program; `--public-key` says whose signature it makes
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sandbox_host.bundle.names import shown
from sandbox_host.bundle.sign import Signer
from sandbox_host.bundle.signature import key_id
from sandbox_host.errors import SignerError, UsageError
from sandbox_host.signing.agent import AgentSigner, find_key, list_keys, socket_of
from sandbox_host.signing.program import ProgramSigner

# At least two letters, so that a path beginning with a drive letter is none.
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.DOTALL)


class Scheme(enum.Enum):
    """Where a key is."""

    FILE = "file"
    AGENT = "ssh-agent"
    PROGRAM = "exec"


@dataclass(frozen=True, slots=True)
class SignerUri:
    """A URI, taken apart: the scheme, and what stands after it."""

    scheme: Scheme
    rest: str


def parse_uri(text: str) -> SignerUri:
    """Take a signer's URI apart; a plain path is a file.

    Raises:
        UsageError: its scheme is none that we know, or it names no file.
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        uri = SignerUri(Scheme.FILE, text)
    elif match[1] in {scheme.value for scheme in Scheme}:
        uri = SignerUri(Scheme(match[1]), match[2])
    else:
        raise UsageError(
            f"{shown(text)} names no signer: there is no scheme {shown(match[1])}.",
            remedy="Give a path, file:PATH, ssh-agent:[FINGERPRINT] or exec:COMMAND; keys in "
            "tokens and key services are reached with exec:.",
        )
    if uri.scheme is Scheme.FILE and not uri.rest:
        raise UsageError("--key names no file.", remedy="Give the path of a private key.")
    return uri


def open_signer(
    text: str,
    *,
    open_file: Callable[[Path], Signer],
    environ: Mapping[str, str],
    public: bytes | None = None,
) -> Signer:
    """Return the signer that a URI names; nothing is signed yet.

    Args:
        text: the URI; see above.
        open_file: reads a private key, asking for a passphrase where it has one.
        environ: variables of the command line's process.
        public: the raw public key that has to sign: required for ``exec:``, and otherwise checked.

    Raises:
        UsageError: the URI makes no sense, ``exec:`` comes without a public key, or the signer has
            another key than `public`.
        SignerError: the agent cannot be used, or has no such key.
        TrustStoreError: as `open_file`.
    """
    uri = parse_uri(text)
    if uri.scheme is Scheme.PROGRAM:
        if public is None:
            raise UsageError(
                "exec: does not say whose signature its program makes.",
                remedy="Give the public key beside it: --public-key FILE.",
            )
        return ProgramSigner(uri.rest, public)
    signer = (
        open_file(Path(uri.rest))
        if uri.scheme is Scheme.FILE
        else _agent_signer(uri.rest, public, environ)
    )
    if public is not None and signer.public != public:
        raise UsageError(
            f"--key names the key {key_id(signer.public)}, and --public-key the key "
            f"{key_id(public)}.",
            remedy="Leave one of them out, or give the right one.",
        )
    return signer


def _agent_signer(wanted: str, public: bytes | None, environ: Mapping[str, str]) -> Signer:
    path = socket_of(environ)
    keys = list_keys(path)
    if not wanted and public is not None:
        wanted = key_id(public)
    if not keys:
        raise SignerError(
            f"the SSH agent at {shown(path)} has no Ed25519 key.",
            remedy="Add one: `ssh-add FILE`. Keys of other kinds, and those in security keys, "
            "cannot sign plugins.",
        )
    return AgentSigner(find_key(keys, wanted), path)

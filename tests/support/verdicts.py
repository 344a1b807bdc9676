"""Reports of `verify` made by hand, and the strangers' words that their renderers must bear."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sandbox_host.cli.exits import Exit
from sandbox_host.cli.reports.model import VERIFIED, DifferingFile, Report, Signer, Verdict

KEY, STRANGER = "ab" * 32, "cd" * 32
BASE = "/srv/checkout"

GOOD = Verdict(
    path="plugins/good",
    code=VERIFIED,
    exit_code=Exit.OK,
    plugin="good",
    version="1.0.0",
    digest="0d" * 32,
    files=2,
    signers=(Signer(KEY, "weather team (publisher)", ("weather_*", "good")),),
    anchor="plugin.json",
)
TAMPERED = Verdict(
    path="plugins/tampered",
    code="tampered",
    exit_code=Exit.REFUSED,
    signers=(Signer(KEY, "weather team (publisher)", ("weather_*",)),),
    reason="'plugins/tampered' is not what was signed: 'main.py' was changed.",
    remedy="Get the bundle again.",
    command="sandbox-host inspect plugins/tampered",
    anchor="plugin.json",
    file=DifferingFile("main.py", "11" * 32, "22" * 32),
)
UNSIGNED = Verdict(
    path="plugins/unsigned",
    code="unsigned",
    exit_code=Exit.UNSIGNED,
    reason="the bundle is not signed.",
    remedy="Sign it.",
    command="sandbox-host sign plugins/unsigned",
    anchor="plugin.json",
)
FOREIGN = Verdict(
    path="plugins/foreign",
    code="untrusted",
    exit_code=Exit.UNTRUSTED,
    signers=(Signer(STRANGER),),
    reason="signed by a stranger.",
    remedy="Ask for the key.",
    command="sandbox-host inspect plugins/foreign",
    anchor="plugin.json",
)

HOSTILE = (
    "a\n::error file=b::forged",
    "##[error]forged",
    "a\r\n%0A::stop-commands::x",
    '"><failure message="forged"/>',
    "]]><x/>&amp;",
    "[click](https://example.org) {0}",
    "\x1b[2J\x07\u202eevil\u2028\x85",
    "x,y:z=1%25",
    "\udcff\ufffe\uffff\ud800",
    "'; touch forged; echo '",
    "%SRCROOT%/../../etc/passwd?#",
    "",
)
"""Words that some format would take for its own, were they not escaped."""


def report(*verdicts: Verdict, **options: Any) -> Report:
    """Return a report of these verdicts; `options` are other fields of it."""
    fields = {"trust_store": "/etc/trust.toml", "base": BASE, "tool_version": "1.2.3", **options}
    return Report(verdicts=verdicts, **fields)


def mixed() -> Report:
    """Return a report with one verdict of each common kind."""
    return report(GOOD, TAMPERED, UNSIGNED, FOREIGN)


words = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=40), st.text("%:,=\n\r#[]{}()<&\"'/\\", max_size=40)
)
"""Text that a stranger chose, surrogates included."""

signers = st.builds(Signer, words, words, st.lists(words, max_size=2).map(tuple))
codes = st.sampled_from(["tampered", "unsigned", "untrusted", "bundle", "manifest", "rollback"])


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    """Draw a verdict in which everything that is not ours is hostile."""
    if draw(st.booleans()):
        return Verdict(
            path=draw(words),
            code=VERIFIED,
            exit_code=Exit.OK,
            plugin="good",
            version=draw(words),
            digest="0d" * 32,
            signers=tuple(draw(st.lists(signers, max_size=2))),
            disregarded=tuple(draw(st.lists(words, max_size=2))),
        )
    return Verdict(
        path=draw(words),
        # A code of its own is what a later version's error may have.
        code=draw(codes | st.just("refused")),
        exit_code=draw(st.sampled_from([Exit.REFUSED, Exit.UNSIGNED, Exit.UNTRUSTED])),
        signers=tuple(draw(st.lists(signers, max_size=3))),
        reason=draw(words),
        remedy=draw(words),
        command=draw(words),
        anchor=draw(st.sampled_from(["", "plugin.json"])),
        file=draw(st.none() | st.builds(DifferingFile, words, words, words)),
        archive=draw(st.booleans()),
    )


reports = st.builds(
    Report,
    st.lists(verdicts(), min_size=1, max_size=4).map(tuple),
    words,
    st.sampled_from(["/", BASE, "/srv/check out"]),
    st.just("1.2.3"),
)

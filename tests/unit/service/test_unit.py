"""The systemd unit: what it has, what it must not have, and paths in it."""

from __future__ import annotations

import re

import pytest

from sandbox_host.service.unit import quoted_word, unit_text


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and line[0] not in "#["]
    return dict(line.split("=", 1) for line in lines)


def test_what_a_service_needs() -> None:
    found = settings(unit_text("/opt/x/sandbox-host", config="/etc/a.toml"))
    assert found["ExecStart"] == "/opt/x/sandbox-host run --stay --config /etc/a.toml"
    assert (found["Type"], found["Delegate"], found["User"]) == ("notify", "yes", "sandbox")
    assert found["StateDirectoryMode"] == "0700"


def test_what_breaks_the_sandbox_is_named_and_not_set() -> None:
    text = unit_text("/bin/true")
    never = {
        *("RestrictNamespaces", "RestrictSUIDSGID", "SystemCallFilter", "ProtectHostname"),
        *(
            "ProtectControlGroups",
            "ProcSubset",
            "ProtectProc",
            "MemoryDenyWriteExecute",
            "PrivateUsers",
        ),
    }
    assert not never & set(settings(text))
    assert never <= set(re.findall(r"^# (\w+)=", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/opt/a", "/opt/a"),
        ("/opt/a b", '"/opt/a b"'),
        ("/100%/$x", "/100%%/$$x"),
        ('/a"b\\', '"/a\\"b\\\\"'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, written: str) -> None:
    assert quoted_word(word) == written


def test_a_line_feed_would_begin_another_setting() -> None:
    with pytest.raises(ValueError, match="control characters"):
        quoted_word("/a\nUser=root")

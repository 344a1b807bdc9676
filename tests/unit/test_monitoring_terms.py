"""The operator's words about alerts."""

from __future__ import annotations

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.errors import ConfigError
from sandbox_host.monitoring_terms import AlertSettings


def test_defaults_tell_the_log_and_subscribers():
    settings = AlertSettings()
    assert (settings.log, settings.event, settings.journal) == (True, True, False)
    assert (settings.webhook, settings.command) == (None, ())


def test_from_toml(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text(
        '[alerts]\nwebhook = "https://x.example:8443/a?b=c"\ncommand = ["/bin/a", "b", "b"]\n'
        'timeout_seconds = "2 s"\npause_seconds = 0\n'
    )
    settings = HostConfig.from_toml(file).alerts
    assert settings.webhook == "https://x.example:8443/a?b=c"
    assert settings.command == ("/bin/a", "b", "b")
    assert (settings.timeout_seconds, settings.pause_seconds) == (2.0, 0.0)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://x.example", "https://", "file:///etc/passwd", "https://u:p@x.example/"),
        *(
            "https://x.example/#f",
            "https://x.example:99999/",
            "https://x.example/a b",
            "http://[::",
        ),
        *("https://x.example/\r\nX: y", "https://ü.example/", "https://x.example/" + "a" * 2_000),
        *("http://x.example:0/", 7, ["https://x.example"]),
    ],
)
def test_what_is_no_webhook(url):
    with pytest.raises(ConfigError, match=r"alerts\.webhook"):
        HostConfig(alerts={"webhook": url})


def test_the_secret_of_a_url_is_not_told():
    with pytest.raises(ConfigError) as caught:
        HostConfig(alerts={"webhook": "https://x.example/secret#f"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "command",
    ["/bin/true", ["true"], ["./true"], ["/bin/true", 1], ["/bin/true", "\0"], ["/x"] * 65, 3],
)
def test_what_is_no_command(command):
    with pytest.raises(ConfigError, match=r"alerts\.command"):
        HostConfig(alerts={"command": command})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout_seconds", 0),
        ("timeout_seconds", 61),
        ("pause_seconds", -1),
        ("repeat_seconds", 0),
        ("repeat_seconds", 59),
        ("log", 1),
        ("webhok", "x"),
    ],
)
def test_what_is_out_of_range(field, value):
    with pytest.raises(ConfigError, match=f"alerts.{field}"):
        HostConfig(alerts={field: value})

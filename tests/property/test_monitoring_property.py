"""What the operator's words about alerts become, whatever they are."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.errors import ConfigError
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.reading import BadValueError

URLS = st.one_of(
    st.text(),
    st.builds(
        "{}://{}{}".format,
        st.sampled_from(["http", "https", "HTTP", "ftp", ""]),
        st.text(max_size=20),
        st.text(max_size=20),
    ),
)


def settings(**fields):
    try:
        return AlertSettings(**fields)
    except (BadValueError, ConfigError):
        return None


@given(URLS)
def test_a_webhook_is_a_plain_url_or_refused(url):
    read = settings(webhook=url)
    if read is None:
        return
    parts = urlsplit(url)
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert url.isprintable()
    assert not set(url) & set(" \r\n#")
    assert parts.username is parts.password is None


@given(st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=4))
def test_a_command_is_words_behind_a_whole_path_or_refused(words):
    read = settings(command=words)
    if read is None:
        return
    assert read.command == tuple(words)
    assert not words or words[0].startswith("/")
    assert all(isinstance(word, str) and "\0" not in word for word in words)

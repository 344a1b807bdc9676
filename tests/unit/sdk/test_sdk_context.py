from __future__ import annotations

from typing import Any

import pytest

from plugin_sdk import (
    CallError,
    Context,
    ContextUnavailableError,
    EventTypeError,
    NotSerializableError,
    PermissionDenied,
    PluginStoppingError,
    QuotaExceededError,
    ServiceError,
    StoreError,
    context,
)
from plugin_sdk.context import install_context
from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import LocalProtocolError
from plugin_sdk.wire.messages import Answer


def make_context(sent: list[tuple[str, Any]]) -> Context:
    return Context(
        "weather_model",
        config={"seed": 1},
        data_dir="/data",
        scratch_dir="/scratch",
        publishable={"model_updated"},
        send=lambda event_type, data: sent.append((event_type, unpack(data))),
    )


def test_outside_a_plugin_the_error_points_to_the_test_support() -> None:
    with pytest.raises(ContextUnavailableError, match=r"plugin_sdk\.testing\.plugin_context"):
        context()


def test_the_context_is_what_was_installed() -> None:
    mine = make_context([])
    replaced = install_context(mine)
    try:
        assert context() is mine
        assert (mine.name, mine.config, mine.data_dir, mine.scratch_dir) == (
            "weather_model",
            {"seed": 1},
            "/data",
            "/scratch",
        )
    finally:
        assert install_context(replaced) is mine


def test_publish_sends_packed_data() -> None:
    sent: list[tuple[str, Any]] = []
    make_context(sent).publish("model_updated", {"rows": (1, 2)})
    make_context(sent).publish("model_updated")
    assert sent == [("model_updated", {"rows": [1, 2]}), ("model_updated", None)]


def test_an_event_that_is_not_granted_names_the_key_to_change() -> None:
    sent: list[tuple[str, Any]] = []
    with pytest.raises(PermissionDenied, match=r"permissions\.publish") as caught:
        make_context(sent).publish("data_processed", 1)
    assert isinstance(caught.value, PermissionError)
    assert "weather_model" in str(caught.value)
    assert sent == []


@pytest.mark.parametrize(
    ("event_type", "data", "error"),
    [
        ("no event", 1, EventTypeError),
        (None, 1, EventTypeError),
        ("model_updated", {1}, NotSerializableError),
        ("model_updated", {1: 2}, NotSerializableError),
        ("model_updated", b"x" * (8 * 1024 * 1024 + 1), NotSerializableError),
    ],
    ids=["type", "none", "set", "key", "size"],
)
def test_what_cannot_be_published(event_type: Any, data: Any, error: type[Exception]) -> None:
    sent: list[tuple[str, Any]] = []
    with pytest.raises(error):
        make_context(sent).publish(event_type, data)
    assert sent == []


def test_publishing_too_late_is_told_as_such() -> None:
    def send(event_type: str, data: bytes) -> None:
        text = "Publish cannot be sent while closed"
        raise LocalProtocolError(text)

    late = Context(
        "late", config={}, data_dir="", scratch_dir="", publishable={"model_updated"}, send=send
    )
    with pytest.raises(PluginStoppingError, match="being unloaded"):
        late.publish("model_updated")


def test_a_log_entry_is_a_level_and_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    log = make_context([]).log
    log.debug("one")
    log.info("%s of %d", "two", 3)
    log.warning("100% sure")
    log.error("wrong: %d", "not a number")
    log.info({"a": 1})
    assert capsys.readouterr().err.splitlines() == [
        "DEBUG one",
        "INFO two of 3",
        "WARNING 100% sure",
        "ERROR wrong: %d ('not a number',)",
        "INFO {'a': 1}",
    ]


def test_no_line_of_an_entry_can_pass_for_another(capsys: pytest.CaptureFixture[str]) -> None:
    make_context([]).log.info("first\nERROR forged\rERROR forged too")
    assert capsys.readouterr().err == "INFO first\n    ERROR forged\n    ERROR forged too\n"


def test_an_exception_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        make_context([]).log.exception("while reading %s", "x")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ERROR while reading x"
    assert lines[1] == "ERROR Traceback (most recent call last):"
    assert lines[-1] == "    KeyError: 'lost'"


def test_a_log_without_a_stream_is_silent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log = make_context([]).log
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", None)
        log.info("nobody listens")
    log.info("somebody does")
    assert capfd.readouterr() == ("", "INFO somebody does\n")


# -- what is asked of the host --------------------------------------------------------------------


def asking(answer: Any, **options: Any) -> tuple[Context, list[tuple[str, Any]]]:
    asked: list[tuple[str, Any]] = []

    def ask(service: str, payload: bytes) -> Any:
        asked.append((service, unpack(payload)))
        if isinstance(answer, Exception):
            raise answer
        return answer

    given = {"services": {"store", "s"}, "calls": {"two.*", "three.read"}} | options
    places = {"config": {}, "data_dir": "", "scratch_dir": "", "publishable": ()}
    return Context("one", send=lambda *_: None, ask=ask, **places, **given), asked


def test_a_call_travels_under_the_name_of_its_target() -> None:
    one, asked = asking(Answer(1, True, payload=pack({"a": 1})))
    assert one.call("two.read", 1, x=2) == {"a": 1}
    assert one.call("three.read") == {"a": 1}
    assert asked == [("@two.read", [[1], {"x": 2}]), ("@three.read", [[], {}])]
    with pytest.raises(PermissionDenied) as caught:
        one.call("three.write")
    assert (caught.value.rule, caught.value.asked) == ("calls", "three.write")
    with pytest.raises(NotSerializableError):
        one.call("two.read", {1})
    assert len(asked) == 2


REFUSED = {"message": "why"}


@pytest.mark.parametrize(
    ("told", "error"),
    [
        (REFUSED, ServiceError),
        ({**REFUSED, "kind": "of a later version"}, ServiceError),
        ({**REFUSED, "kind": "quota"}, QuotaExceededError),
        ({**REFUSED, "kind": "store"}, StoreError),
        ({**REFUSED, "kind": "call", "code": "ended"}, CallError),
        ({**REFUSED, "kind": "permission", "rule": "exports"}, PermissionDenied),
    ],
    ids=["plain", "unknown", "quota", "store", "call", "permission"],
)
def test_a_refusal_is_one_of_our_own_errors(told: dict[str, str], error: type[Exception]) -> None:
    one, _ = asking(Answer(1, False, payload=pack(told)))
    with pytest.raises(error, match=r'"two\.read" was not done: why') as caught:
        one.call("two.read")
    assert type(caught.value) is error
    assert getattr(caught.value, "code", "ended") in {"ended", ""}
    assert getattr(caught.value, "rule", "exports") == "exports"


def test_what_another_plugin_returns_may_be_anything() -> None:
    one, _ = asking(Answer(1, True, payload=b"\xc1"))
    with pytest.raises(CallError, match="cannot be read") as caught:
        one.call("two.read")
    assert caught.value.code == "not-serializable"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(None, PluginStoppingError), (LocalProtocolError("not now"), ServiceError)],
    ids=["gone", "not now"],
)
def test_a_host_that_does_not_answer(answer: Any, error: type[Exception]) -> None:
    one, _ = asking(answer)
    for ask in (lambda: one.ask("s"), lambda: one.call("two.read"), lambda: one.store.get("a")):
        with pytest.raises(error):
            ask()


def test_progress_is_told_in_whole_numbers() -> None:
    told: list[tuple[int, int]] = []
    one, _ = asking(None, progress=lambda *both: told.append(both))
    one.progress(1)
    one.progress(2, 3)
    for wrong in (-1, 1.5, True, "1", 2**53):
        with pytest.raises(ValueError, match="whole numbers"):
            one.progress(wrong)  # type: ignore[arg-type]  # the point
    assert told == [(1, 0), (2, 3)]
    make_context([]).progress(1)  # nobody listens


def test_entries_are_sent_where_there_is_a_way(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[tuple[int, str, str]] = []
    one, _ = asking(None, log=lambda *entry: sent.append(entry))
    one.log.warning("%d", 1)
    assert sent == [(30, "one", "1")]
    assert capsys.readouterr().err == ""

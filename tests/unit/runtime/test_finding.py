"""Which plugin is found, by what is known of each; no process runs."""

from __future__ import annotations

import pytest

from plugin_sdk.kinds import KINDS
from sandbox_host.errors import KindMismatchError, NoSuchCapabilityError, UsageError
from sandbox_host.runtime.finding import (
    KIND_OPERATIONS,
    NATURAL_KINDS,
    Candidate,
    Wanted,
    none_found,
)

MODEL = Candidate("gpt", ("ai_model",), "Model", ("predict",))
SOURCE = Candidate("files", ("ai_model", "data_source"), "DataSource", ("read",))
PLAIN = Candidate("plain", ("ai_model",), "", ("predict", "other"))
BARE = Candidate("bare", ("ai_model",), "", ("other",))
ENDED = Candidate("ended", ("ai_model",), trouble="it crashed")


def test_the_kinds_are_the_sdks() -> None:
    assert dict(KIND_OPERATIONS) == {kind.__name__: kind.OPERATIONS for kind in KINDS}
    assert set(NATURAL_KINDS.values()) == set(KIND_OPERATIONS)


@pytest.mark.parametrize(
    ("candidate", "kind", "operation", "exclude", "why"),
    [
        (MODEL, None, None, (), ""),
        (MODEL, "Model", "predict", (), ""),
        (MODEL, "Pipeline", None, (), "it is a Model, not a Pipeline"),
        (MODEL, None, "train", (), 'it has no operation "train"'),
        (MODEL, None, None, ("GPT",), "it is excluded"),
        (MODEL, None, None, "gpt", "it is excluded"),
        (SOURCE, None, None, (), "it is a DataSource, not a Model"),
        (SOURCE, "DataSource", None, ("gpt",), ""),
        (PLAIN, None, None, (), ""),
        (BARE, None, None, (), "it is of no kind, not a Model"),
        (ENDED, None, None, (), "it crashed"),
    ],
)
def test_objections(
    candidate: Candidate, kind: str | None, operation: str | None, exclude: tuple[str], why: str
) -> None:
    assert Wanted.of("ai_model", kind, operation, exclude).objection(candidate) == why


def test_a_capability_that_names_no_kind_takes_any() -> None:
    wanted = Wanted.of("example_capability")
    assert wanted.kind is None
    assert [wanted.objection(one) for one in (MODEL, SOURCE, PLAIN, BARE)] == [""] * 4


@pytest.mark.parametrize("capability", ["", "a b", "9", "x" * 65, None, 7, "a\n"])
def test_what_cannot_be_a_capability(capability: str) -> None:
    with pytest.raises(UsageError, match="capability"):
        Wanted.of(capability)


def test_what_is_no_kind() -> None:
    with pytest.raises(UsageError, match="Model, DataSource, Pipeline"):
        Wanted.of("ai_model", "Modell")


def test_there_is_none() -> None:
    error = none_found(Wanted.of("vision"), [SOURCE, MODEL], [])
    assert isinstance(error, NoSuchCapabilityError)
    assert (error.code, error.capability, error.reasons) == ("no-such-capability", "vision", ())
    assert "those that are have ai_model, data_source" in str(error)
    assert "none has any" in str(none_found(Wanted.of("vision"), [], []))


def test_there_are_some_and_none_can_be_used() -> None:
    reasons = (
        ("ended", "it crashed"),
        ("files", "it is a DataSource, not a Model"),
        ("gpt", "ill"),
    )
    error = none_found(Wanted.of("ai_model"), [ENDED, SOURCE, MODEL], reasons)
    assert isinstance(error, NoSuchCapabilityError)
    assert error.reasons == reasons
    assert "ended: it crashed; files: it is a DataSource, not a Model; gpt: ill." in str(error)
    many = [(f"p{number}", "ill") for number in range(11)]
    assert "p7: ill; and 3 more." in str(none_found(Wanted.of("ai_model"), [MODEL], many))


@pytest.mark.parametrize("others", [[], [ENDED]], ids=["alone", "beside-one-that-ended"])
def test_all_are_of_another_kind(others: list[Candidate]) -> None:
    error = none_found(Wanted.of("ai_model"), [*others, SOURCE, BARE], [])
    assert isinstance(error, KindMismatchError)
    assert (error.code, error.plugin) == ("kind-mismatch", "files")
    assert (error.wanted, error.found) == ("Model", "DataSource")
    assert "files is a DataSource, bare is of no kind" in str(error)


def test_nobody_knows_the_kind_of_what_has_ended() -> None:
    error = none_found(Wanted.of("ai_model"), [ENDED], [("ended", "it crashed")])
    assert isinstance(error, NoSuchCapabilityError)

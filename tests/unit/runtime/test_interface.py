"""What a started plugin says it is, against what was signed."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_host.errors import MetadataMismatchError, StartError
from sandbox_host.model import Manifest
from sandbox_host.runtime.interface import check_ready

MANIFEST = Manifest(
    name="MyPlugin",
    identity="my_plugin",
    version="1.0.0",
    description="A plugin.",
    author="Somebody",
    capabilities=("ai_model", "pipeline"),
    dependencies=("core_framework >= 1.0.0",),
    events=("data_processed",),
)


def told(**changes: Any) -> dict[str, Any]:
    return {
        "metadata": {},
        "operations": [{"name": "predict"}, {"name": "train"}],
        "handles": ["data_processed"],
        "kind": "Model",
        "warnings": ["mind the gap"],
        **changes,
    }


def test_interface() -> None:
    interface = check_ready(MANIFEST, told())
    assert interface.operations == ("predict", "train")
    assert interface.handles == ("data_processed",)
    assert (interface.kind, interface.warnings) == ("Model", ("mind the gap",))


def test_what_a_later_runtime_adds_is_ignored() -> None:
    operations = [{"name": "predict", "streams": True}]
    more = told(operations=operations, invented_later={"by": "a newer runtime"})
    assert check_ready(MANIFEST, more) == check_ready(
        MANIFEST, told(operations=[{"name": "predict"}])
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {"name": "MyPlugin", "version": "1.0.0", "description": "A plugin.", "author": "Somebody"},
        {"capabilities": ["pipeline", "ai_model"]},
        {"capabilities": {"ai_model": True, "pipeline": True, "data_source": False}},
        {"dependencies": ["core_framework >= 1.0.0"]},
        {"anything": "else"},
    ],
)
def test_metadata_that_agrees(metadata: dict[str, Any]) -> None:
    assert check_ready(MANIFEST, told(metadata=metadata)).operations


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "my_plugin"),
        ("version", "1.0"),
        ("version", None),
        ("author", ["Somebody"]),
        ("capabilities", ["ai_model"]),
        ("capabilities", {"ai_model": True, "pipeline": 1}),
        ("capabilities", "ai_model"),
        ("capabilities", [["ai_model"]]),
        ("dependencies", []),
        ("dependencies", "core_framework >= 1.0.0"),
        ("description", "\x1b[2J" * 1_000),
    ],
)
def test_metadata_that_differs(key: str, value: Any) -> None:
    with pytest.raises(MetadataMismatchError, match=f"'{key}'") as caught:
        check_ready(MANIFEST, told(metadata={key: value}))
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        told(metadata=None),
        told(operations=["predict"]),
        told(operations=[{"name": ""}]),
        told(operations=[{"name": "a\nb"}]),
        told(operations=[{"name": "x" * 257}]),
        told(operations=[{"name": str(n)} for n in range(1_001)]),
        told(handles=["model_updated"]),
        told(handles=[["data_processed"]]),
    ],
)
def test_malformed(payload: Any) -> None:
    with pytest.raises(StartError, match="not understood"):
        check_ready(MANIFEST, payload)


def test_what_is_told_twice_counts_once() -> None:
    twice = told(handles=["data_processed"] * 900, operations=[{"name": "predict"}] * 900)
    interface = check_ready(MANIFEST, twice)
    assert (interface.handles, interface.operations) == (("data_processed",), ("predict",))


def test_what_is_only_shown_is_cleaned_and_bounded() -> None:
    payload = told(kind="\x1b" * 500, warnings=["\x1b" * 10_000] * 100 + [3, None])
    interface = check_ready(MANIFEST, payload)
    assert "\x1b" not in interface.kind + "".join(interface.warnings)
    assert len(interface.warnings) <= 20
    assert len("".join(interface.warnings)) < 100_000


@pytest.mark.parametrize("key", ["operations", "handles", "warnings"])
def test_lists_that_are_none_are_empty(key: str) -> None:
    assert getattr(check_ready(MANIFEST, told(**{key: "text"})), key) == ()

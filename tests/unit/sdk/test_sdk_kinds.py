from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from plugin_sdk import DataSource, Model, Pipeline, operation
from plugin_sdk.kinds import KINDS, OPERATION


def test_a_marked_function_stays_what_it_was() -> None:
    @operation
    def forecast(days: int) -> int:
        return days

    assert getattr(forecast, OPERATION) == "forecast"
    assert forecast(3) == 3


def test_an_operation_may_have_another_name() -> None:
    @operation("forecast")
    def _forecast() -> None: ...

    assert getattr(_forecast, OPERATION) == "forecast"


def test_wrappers_and_static_methods_can_be_marked() -> None:
    @operation
    @functools.lru_cache
    def cached() -> int:
        return 1

    class Holder:
        @operation
        @staticmethod
        def static() -> None: ...

    assert getattr(cached, OPERATION) == "cached"
    assert getattr(Holder.static, OPERATION) == "static"


@pytest.mark.parametrize(
    "target", [int, Model, 3, None, lambda: 1], ids=["type", "kind", "int", "none", "lambda"]
)
def test_only_named_functions_can_be_marked(target: Any) -> None:
    with pytest.raises(TypeError, match="@operation stands on"):
        operation(target)


@pytest.mark.parametrize("name", ["", "a b", "1a", "a.b"])
def test_an_operation_has_an_identifier_for_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="is not a name for an operation"):
        operation(name)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in KINDS for name in kind.OPERATIONS]
)
def test_a_method_that_is_not_overridden_says_so(kind: type, name: str) -> None:
    subclass = type("Mine", (kind,), {})
    method: Callable[..., Any] = getattr(subclass(), name)
    with pytest.raises(NotImplementedError, match=rf"Mine does not define {name}\(\)"):
        method("any", arguments=1)


def test_the_kinds_offer_what_both_documents_name() -> None:
    assert Model.OPERATIONS == ("predict", "train", "evaluate")
    assert DataSource.OPERATIONS == ("connect", "disconnect", "read", "write")
    assert Pipeline.OPERATIONS == ("stages", "add_stage", "process")

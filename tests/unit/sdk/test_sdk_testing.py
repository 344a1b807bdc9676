from __future__ import annotations

import os

import pytest

from plugin_sdk import ContextUnavailableError, PermissionDenied, context
from plugin_sdk.testing import plugin_context
from plugin_sdk.wire.errors import PayloadError


def test_the_context_works_inside_the_block_only() -> None:
    with plugin_context(config={"factor": 2}, name="weather_model") as test:
        assert context() is test.context
        assert context().config == {"factor": 2}
        assert context().name == "weather_model"
        directories = (context().data_dir, context().scratch_dir)
        assert all(os.path.isdir(directory) for directory in directories)
    with pytest.raises(ContextUnavailableError):
        context()
    assert not any(os.path.exists(directory) for directory in directories)


def test_given_directories_are_used_and_kept(tmp_path: os.PathLike[str]) -> None:
    with plugin_context(data_dir=str(tmp_path), scratch_dir=str(tmp_path)):
        assert context().data_dir == context().scratch_dir == str(tmp_path)
    assert os.path.isdir(tmp_path)


def test_what_is_published_is_recorded_as_a_subscriber_gets_it() -> None:
    with plugin_context() as test:
        context().publish("data_processed", {"rows": (1, 2)})
        context().publish("model_updated")
    assert test.published == [("data_processed", {"rows": [1, 2]}), ("model_updated", None)]


def test_grants_can_be_tested() -> None:
    with plugin_context(publish=["data_processed"]) as test:
        context().publish("data_processed")
        with pytest.raises(PermissionDenied):
            context().publish("model_updated")
    assert test.published == [("data_processed", None)]


def test_contexts_nest() -> None:
    with plugin_context(name="outer"):
        with plugin_context(name="inner"):
            assert context().name == "inner"
        assert context().name == "outer"


def test_the_context_is_removed_when_the_test_fails() -> None:
    with pytest.raises(ZeroDivisionError), plugin_context():
        1 / 0  # noqa: B018
    with pytest.raises(ContextUnavailableError):
        context()


def test_a_configuration_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(PayloadError), plugin_context(config={"when": object()}):
        pytest.fail("the block must not run")

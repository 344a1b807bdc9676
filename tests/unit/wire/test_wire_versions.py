from __future__ import annotations

import pytest

from plugin_sdk.wire.versions import OURS, common_version, mismatch, read_versions


@pytest.mark.parametrize(
    ("host", "plugin", "common"),
    [
        ((1, 1), (1, 1), 1),
        ((1, 3), (2, 5), 3),
        ((2, 5), (1, 3), 3),
        ((1, 9), (4, 4), 4),
        ((1, 1), (2, 3), None),
        ((2, 3), (1, 1), None),
        ((1, 3), (3, 1), None),
        ((1, 3), (0, 0), None),
    ],
)
def test_the_newest_that_both_speak(
    host: tuple[int, int], plugin: tuple[int, int], common: int | None
) -> None:
    assert common_version(host, plugin) == common


def test_we_understand_ourselves() -> None:
    assert common_version(OURS, OURS) == OURS[1]


def test_a_mismatch_names_both_ranges() -> None:
    told = mismatch((1, 1), (2, 3))
    assert "the host speaks version 1 of" in told
    assert "the plugin's runtime versions 2 to 3" in told


@pytest.mark.parametrize("told", [None, "1", [1], [1, 2, 3], [1, "2"], [-1, 2], {"1": 2}, [1.0, 2]])
def test_what_is_no_range(told: object) -> None:
    assert read_versions(told) is None


def test_a_range() -> None:
    assert read_versions([1, 2]) == (1, 2)

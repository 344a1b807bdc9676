"""One bench for each table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.tampering import Bench, bench_in


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A signed plugin, what trusts it, and a host."""
    with bench_in(tmp_path_factory.mktemp("a bench")) as made:
        yield made

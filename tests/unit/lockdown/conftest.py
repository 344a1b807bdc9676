from __future__ import annotations

import pytest

from tests.support.alone import has_user_namespaces


@pytest.fixture
def _own_user() -> None:
    if not has_user_namespaces():
        pytest.skip("no user namespaces here")

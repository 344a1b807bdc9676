"""``python -m tests.support.lifecycle_page`` makes the pictures of docs/lifecycle.md afresh."""

from __future__ import annotations

from pathlib import Path

from sandbox_host.supervision.picture import page

PAGE = Path(__file__).parents[2] / "docs" / "lifecycle.md"

if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

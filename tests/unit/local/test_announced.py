"""Which page shows a data folder."""

from __future__ import annotations

import json
from pathlib import Path

from convotic_local.announced import announce_page, find_page


def test_a_page_is_found_while_it_is_shown(tmp_path: Path) -> None:
    """And not before or after."""
    assert find_page(tmp_path) is None

    with announce_page(tmp_path, "http://127.0.0.1:8100/"):
        assert find_page(tmp_path) == "http://127.0.0.1:8100/"

    assert find_page(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_last_page_counts(tmp_path: Path) -> None:
    """One that ends leaves the record of another alone."""
    with announce_page(tmp_path, "http://127.0.0.1:1/"):
        later = announce_page(tmp_path, "http://127.0.0.1:2/")
        later.__enter__()

    assert find_page(tmp_path) == "http://127.0.0.1:2/"
    later.__exit__(None, None, None)


def test_a_killed_process_leaves_no_dead_link(tmp_path: Path) -> None:
    """Nor does a file that is no record."""
    file = tmp_path / "dashboard.json"
    for text in (json.dumps({"url": "http://x/", "process": 2**30}), "{", "[]", "{}"):
        file.write_text(text)
        assert find_page(tmp_path) is None

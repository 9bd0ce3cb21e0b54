"""Where acceptance tests play: a worker's folder, with the embedded broker or Google's emulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.stage import Stage, make_stage


@pytest.fixture(params=["embedded", pytest.param("google", marks=pytest.mark.google_emulator)])
def stage(request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path) -> Stage:
    """A stage on each of the two brokers in turn."""
    address = request.getfixturevalue("google_emulator") if request.param == "google" else None
    return make_stage(tmp_path, data_dir, address)


@pytest.fixture
def embedded_stage(tmp_path: Path, data_dir: Path) -> Stage:
    """A stage on the embedded broker, for what does not depend on the broker."""
    return make_stage(tmp_path, data_dir, None)

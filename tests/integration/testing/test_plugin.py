"""The pytest plugin, as a module author's project has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import PATIENCE

TEST = """
import pytest

from convotic_celery import ConvoticModule

module = ConvoticModule(name="shop", version="1.0.0")


@module.worker("orders")
async def handle(message, ctx):
    await ctx.storage.set("seen", message.data)


@pytest.mark.asyncio
async def test_it(convotic_app):
    async with convotic_app(module) as app:
        await app.publish("orders", data={"id": 1})
        await app.drain()

        assert app.dead_letters == []
        assert await app.ctx.storage.get("seen") == {"id": 1}
"""


def test_a_stranger_s_test_needs_no_import(tmp_path: Path) -> None:
    """The fixture convotic_app is there; the plugin names itself by entry point."""
    (tmp_path / "test_shop.py").write_text(TEST)

    done = subprocess.run(
        [Path(sys.executable).with_name("pytest"), "-q", "-p", "convotic_celery.testing.plugin"],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p asyncio"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout

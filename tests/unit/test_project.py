"""A project is found from its sub-folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from convotic_celery.modules import load_modules
from convotic_celery.project import find_project
from convotic_celery.settings import Settings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a module, and a folder in it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "m_shop.py").write_text(
        "from convotic_celery import ConvoticModule\n"
        "import shared_code\n"
        "module = ConvoticModule('shop', '1')\n"
    )
    (tmp_path / "shared_code.py").write_text("")
    (tmp_path / "scripts" / "daily").mkdir(parents=True)
    return tmp_path


def test_a_sub_folder_is_the_project_s(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its modules, their imports and its data folder; as git finds .git."""
    monkeypatch.chdir(project / "scripts" / "daily")

    settings = Settings()

    assert settings.data_dir == project / ".convotic"
    assert [module.name for module in load_modules(settings)] == ["shop"]


def test_the_nearest_folder_counts(project: Path) -> None:
    """One with data is a project as well."""
    (project / "scripts" / ".convotic").mkdir()

    assert find_project(project / "scripts" / "daily") == project / "scripts"


@pytest.mark.parametrize("what", ["another repository", "a shared folder", "no modules"])
def test_what_is_no_project_of_this_user_does_not_count(project: Path, what: str) -> None:
    """Then the working directory is the project, as before."""
    here = project / "scripts" / "daily"
    if what == "another repository":
        (project / "scripts" / ".git").mkdir()
    elif what == "a shared folder":
        project.chmod(0o777)
    else:
        (project / "modules" / "m_shop.py").rename(project / "modules" / "main.tf")

    assert find_project(here) == here


def test_a_folder_that_was_given_is_meant(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the working directory."""
    monkeypatch.chdir(project / "scripts")

    assert Settings(data_dir=Path("data")).data_folder == project / "scripts" / "data"

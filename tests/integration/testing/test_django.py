"""Modules beside a Django project, in processes of their own: Django is set up once a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {
    "site_settings.py": """
INSTALLED_APPS = ["crm"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
""",
    "crm/__init__.py": "",
    "crm/models.py": """
from django.db import models

class Contact(models.Model):
    name = models.TextField()
""",
    "modules/shop.py": """
from convotic_celery import ConvoticModule
from crm.models import Contact

module = ConvoticModule(name="shop", version="1")

@module.worker("custom.contacts.new")
def save(message, ctx):
    Contact.objects.create(name=message.data["name"])
""",
}
#: A Django app that makes the Celery app when Django starts, as many do.
EAGER = """
from django.apps import AppConfig

class Crm(AppConfig):
    name = "crm"

    def ready(self):
        from convotic_celery.app import create_app
        create_app(set_as_current=False)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a Django project and a module that imports its models."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(site: Path, *command: str) -> str:
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "site_settings"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=site,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_module_may_import_models(site: Path) -> None:
    """Without django.setup() of its own, by our commands and by Celery's."""
    assert "custom.contacts.new" in run(site, "-m", "convotic_celery.cli", "handlers")
    assert "convotic" in run(site, "-m", "celery", "-A", "convotic_celery", "report")


def test_django_that_is_set_up_already_stays_so(site: Path) -> None:
    """Also while it is just loading its apps, which can't be done twice at a time."""
    (site / "crm" / "apps.py").write_text(EAGER)

    code = "import django; django.setup(); print('ready')"

    assert run(site, "-c", code) == "ready\n"

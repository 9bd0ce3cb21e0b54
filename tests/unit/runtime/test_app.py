"""The app: its configuration, its queues, and that making it starts nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from convotic_celery.app import ConvoticApp, create_app
from convotic_celery.errors import ConfigurationError
from convotic_celery.settings import Settings
from tests.support.waiting import PATIENCE
from tests.unit.runtime.support import define, make_app, make_settings

MODULE = """
from convotic_celery import ConvoticModule

module = ConvoticModule(name="crm", version="1.0.0")


@module.worker("orders.new", concurrency=4)
async def take(message, ctx):
    \"\"\"Take it.\"\"\"
"""


@pytest.fixture
def modules_dir(tmp_path: Path) -> Path:
    """A folder with one module."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "crm_unit.py").write_text(MODULE)
    return folder


def test_a_handler_is_task_queue_and_specification_of_one_name() -> None:
    """T.M everywhere."""
    app = make_app(define(max_retries=4, ack_deadline=20, concurrency=3))
    spec = app.conf.broker_transport_options["queues"]["orders.new.shop"]

    assert app.tasks["orders.new.shop"].max_retries == 4
    assert [queue.name for queue in app.conf.task_queues] == ["orders.new.shop", "celery"]
    assert (spec.topic, spec.subscription) == ("orders.new", "orders.new.shop")
    assert spec.dead_letter_topic == "orders.new.shop.dead-letter"
    assert spec.max_delivery_attempts == 15
    assert (spec.ack_deadline_seconds, spec.concurrency) == (20, 3)
    assert app.total_concurrency == 3


def test_a_bounded_pool_bounds_the_pull() -> None:
    """-c is a second limit for each handler."""
    app = make_app(define(concurrency=8), define(module="crm", concurrency=2))
    app.limit_concurrency(3)

    queues = app.conf.broker_transport_options["queues"]
    assert [queues[name].concurrency for name in sorted(queues)] == [2, 3]


def test_unknown_queues_are_never_created() -> None:
    """A slip in -Q or in a route is an error."""
    app = make_app(define())

    with pytest.raises(KeyError):
        app.amqp.queues["orders.nwe.shop"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"broker_url": "pubsub://p"}, None),
        ({"broker_url": None, "pubsub_emulator_host": "h:1"}, "h:1"),
    ],
)
def test_the_broker_s_address_comes_from_the_settings(
    values: dict[str, Any], expected: str | None
) -> None:
    """A broker URL names the service; an emulator's address is passed on."""
    app = ConvoticApp(make_settings(**values), [])

    assert app.conf.broker_transport_options.get("emulator_host") == expected


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nope://host", "No such transport: nope"),
        ("redis://:secret@host", "pubsub://PROJECT, not on redis://"),
        ("amqp://host", "pubsub://PROJECT, not on amqp://"),
        ("pubsub://", "names no project"),
        ("pubsub://project/more", "nothing after the project"),
    ],
)
def test_a_broker_url_that_can_never_work_is_refused(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, with the variable's name; Celery would try it again a hundred times."""
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)

    with pytest.raises(ConfigurationError, match=f"CONVOTIC_BROKER_URL: .*{reason}"):
        ConvoticApp(make_settings(broker_url=url), [])


def test_the_embedded_broker_is_a_function_that_nobody_has_called(tmp_path: Path) -> None:
    """Making the app starts nothing and makes no folder."""
    data_dir = tmp_path / "data"
    app = ConvoticApp(Settings(modules=[], data_dir=data_dir), [])

    assert callable(app.conf.broker_transport_options["emulator_host"])
    assert app.conf.broker_url == "pubsub://convotic-local"
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("redis_url", "backend_url"),
    [
        ("redis://:secret@host:6379/3", "redis://:secret@host:6379/3"),
        ("unix:///run/valkey.sock", "redis+socket:///run/valkey.sock"),
    ],
)
def test_results_are_kept_in_the_store(redis_url: str, backend_url: str) -> None:
    """The store's server is the result backend, in the form that Celery writes it."""
    app = ConvoticApp(make_settings(redis_url=redis_url), [])

    assert type(app.backend).__name__ == "RedisBackend"
    assert app.conf.result_backend == backend_url


def test_an_own_result_backend_stays() -> None:
    """What a user configures wins."""
    app = ConvoticApp(make_settings(), [])
    app.conf.update(result_backend="cache+memory://")

    assert type(app.backend).__name__ == "CacheBackend"


def test_a_spawned_child_has_time_to_start() -> None:
    """Celery's 4 s are for forked ones: on a busy machine no child ever came up."""
    app = ConvoticApp(make_settings(), [])

    assert app.conf.worker_pool_start_method == "spawn"
    assert app.conf.worker_proc_alive_timeout >= 60


def test_a_spawned_child_makes_the_same_app(modules_dir: Path) -> None:
    """Settings and changes travel; modules, queues and policies are rebuilt."""
    app = create_app(make_settings(modules=None, modules_dir=modules_dir))
    app.conf.task_soft_time_limit = 33

    copy = pickle.loads(pickle.dumps(app))

    assert [d.queue for d in copy.definitions] == ["orders.new.crm"]
    assert copy.conf.task_soft_time_limit == 33
    assert copy.conf.broker_transport_options["queues"]["orders.new.crm"].concurrency == 4


@pytest.mark.parametrize("broken", ["raise RuntimeError('boom')", "import nowhere_to_be_found"])
def test_a_broken_module_is_one_line_and_an_exit_code(tmp_path: Path, broken: str) -> None:
    """`celery -A convotic_celery worker` names file and cause, without a traceback."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "broken_unit.py").write_text(broken)

    ended = subprocess.run(
        [Path(sys.executable).with_name("celery"), "-A", "convotic_celery", "worker"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr + ended.stdout
    assert "broken_unit.py" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 2

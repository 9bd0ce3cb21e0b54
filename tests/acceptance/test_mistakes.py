"""What a newcomer gets wrong: each ends with one line that says what, where and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from google.cloud.pubsub_v1 import PublisherClient, SubscriberClient

from convotic_celery.cli.demo.producer import close_publisher, make_publisher, make_subscriber
from tests.acceptance.stage import QUEUE, TOPIC, Stage
from tests.support.waiting import PATIENCE

CELERY = ("celery", "-A", "convotic_celery")
CONVOTIC = ("convotic_celery.cli",)


#: Root may read and write everything; behind this it may what others may.
AS_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def run(stage: Stage, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m ARGUMENTS`` in the stage's folder to its end."""
    return run_behind((), stage, arguments, environment)


def run_as_user(
    stage: Stage, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Do the same, bound by the permissions of files."""
    return run_behind(AS_USER if os.geteuid() == 0 else (), stage, arguments, environment)


def run_behind(
    before: tuple[str, ...], stage: Stage, arguments: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run it behind another program."""
    return subprocess.run(
        [*before, sys.executable, "-W", "ignore", "-m", *arguments],
        cwd=stage.folder,
        env=os.environ | stage.environment | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return what it said last, after checking that it failed without a traceback."""
    said = done.stdout + done.stderr
    assert done.returncode > 0, said
    assert "Traceback" not in said
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def no_folder(tmp_path: Path) -> str:
    """A data folder that can't be made: there is a file of that name."""
    file = tmp_path / "data"
    file.write_text("")
    return str(file)


@pytest.mark.parametrize(
    "command",
    [
        (*CELERY, "worker"),
        (*CELERY, "call", QUEUE, "--args", "[1]"),
        (*CONVOTIC, "publish", TOPIC, "{}"),
        (*CONVOTIC, "emulator", "--port", "0"),
    ],
    ids=["worker", "call", "publish", "emulator"],
)
def test_a_data_folder_that_can_t_be_used(
    embedded_stage: Stage, command: tuple[str, ...], no_folder: str
) -> None:
    """The folder is named, by Celery's commands and ours."""
    assert no_folder in last_line(run(embedded_stage, *command, CONVOTIC_DATA_DIR=no_folder))


@pytest.fixture
def another_users_folder(tmp_path: Path) -> Path:
    """A folder in which this user may not even look."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
    folder.chmod(0o700 if os.geteuid() == 0 else 0)
    return folder


@pytest.mark.parametrize("command", [("emulator", "status"), ("emulator", "stop"), ("routes",)])
def test_another_users_data_folder(
    embedded_stage: Stage, command: tuple[str, ...], another_users_folder: Path
) -> None:
    """One line names it and the variable; nothing is said to be running or not."""
    environment = {"CONVOTIC_DATA_DIR": str(another_users_folder)}
    done = run_as_user(embedded_stage, *CONVOTIC, *command, **environment)

    line = last_line(done)
    assert str(another_users_folder) in line
    assert "CONVOTIC_DATA_DIR" in line
    assert done.stdout == ""


def test_routes_where_nothing_can_be_written(embedded_stage: Stage, tmp_path: Path) -> None:
    """In a folder that is to be read only, with the data folder that is there by default."""
    folder = tmp_path / "read-only"
    shutil.copytree(embedded_stage.folder / "modules", folder / "modules")
    folder.chmod(0o555)
    del embedded_stage.environment["CONVOTIC_DATA_DIR"]
    embedded_stage.folder = folder

    line = last_line(run_as_user(embedded_stage, *CONVOTIC, "routes", "--port", "0"))

    assert f"{folder}/.convotic" in line
    assert "CONVOTIC_DATA_DIR" in line


@pytest.mark.parametrize(
    "command",
    [(*CELERY, "worker"), (*CELERY, "flower"), (*CELERY, "purge", "-f"), (*CONVOTIC, "routes")],
    ids=["worker", "flower", "purge", "routes"],
)
def test_production_without_addresses(embedded_stage: Stage, command: tuple[str, ...]) -> None:
    """Each command refuses, and says which variables are missing."""
    line = last_line(run(embedded_stage, *command, CONVOTIC_ENV="production"))

    assert "CONVOTIC_BROKER_URL" in line
    assert "CONVOTIC_REDIS_URL" in line


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CONVOTIC_BROKER_URL": "pubsup://project"}, "Did you mean pubsub?"),
        ({"CONVOTIC_BROKER_URL": "pubsub://"}, "names no project"),
        ({"CONVOTIC_MODULES_DIR": "nowhere"}, "there is no folder"),
        ({"CONVOTIC_PROVISION": "verify"}, f"{TOPIC} does not exist"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value.values())),
)
def test_settings_that_can_t_work_end_the_worker(
    embedded_stage: Stage, variables: dict[str, str], reason: str
) -> None:
    """A worker that tried again and again would only look as if it worked."""
    assert reason in last_line(run(embedded_stage, *CELERY, "worker", **variables))


def test_ordering_that_can_t_be_changed_ends_the_worker(embedded_stage: Stage) -> None:
    """A subscription without ordering exists: the worker names it and the way out."""
    create_subscription(embedded_stage)

    options = f'{{"{TOPIC}": {{"enable_message_ordering": true}}}}'
    done = run(embedded_stage, *CELERY, "worker", CONVOTIC_HANDLER_OPTIONS=options)

    line = last_line(done)
    assert "enable_message_ordering is False, wanted True" in line
    assert "subscription=" in line


def create_subscription(stage: Stage) -> None:
    """Create the handler's topic and subscription as somebody else might have."""
    publisher: PublisherClient = make_publisher(stage.address)
    subscriber: SubscriberClient = make_subscriber(stage.address)
    topic = f"projects/{stage.project}/topics/{TOPIC}"
    try:
        publisher.create_topic(name=topic)
        name = f"projects/{stage.project}/subscriptions/{QUEUE}"
        subscriber.create_subscription(name=name, topic=topic)
    finally:
        close_publisher(publisher)
        subscriber.close()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"CONVOTIC_REDIS_URL": "redis://127.0.0.1:1/0"}, "The store does not answer"),
    ],
    ids=["broker", "store"],
)
def test_a_demo_without_its_servers(
    embedded_stage: Stage, variables: dict[str, str], reason: str
) -> None:
    """It asks both before it starts anything."""
    line = last_line(run(embedded_stage, *CONVOTIC, "demo", "--orders", "1", **variables))

    assert reason in line


def test_a_taken_port_is_told_with_a_way_out(embedded_stage: Stage) -> None:
    """`convotic emulator` on a port that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = last_line(run(embedded_stage, *CONVOTIC, "emulator", "--port", str(port)))

    assert line == (
        f"Can't listen on 127.0.0.1:{port}: the port is taken, or the host is not ours. "
        "Port 0 is any free one."
    )


def test_a_queue_that_there_is_not(embedded_stage: Stage) -> None:
    """`-Q nope` names it, and those that there are."""
    done = run(embedded_stage, *CELERY, "worker", "-Q", "nope")

    assert last_line(done).startswith("Error: There is no queue nope. The queues are: ")
    assert QUEUE in last_line(done)


def test_celery_report_says_where_results_are(embedded_stage: Stage) -> None:
    """The store is the result backend unless told otherwise, so results are not disabled."""
    done = run(embedded_stage, *CELERY, "report")

    assert done.returncode == 0, done.stderr
    assert "results:disabled" not in done.stdout
    assert "transport:pubsub" in done.stdout

"""The message types come without Google's clients, and the clients come when they are wanted."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> None:
    """Run a program in a process of its own, in which nothing is imported."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", ["convotic_pubsub.session", "convotic_emulator.server"])
def test_transport_and_emulator_import_no_client(user: str) -> None:
    """They would take five times as long as the types."""
    run(f"""
import {user}, sys
assert "google.pubsub_v1.types.pubsub" in sys.modules
assert not [name for name in sys.modules if name.startswith("google.pubsub_v1.services")]
assert "google.api_core.retry" not in sys.modules
""")


@pytest.mark.parametrize(
    "wanted",
    [
        "from google.pubsub_v1 import PublisherAsyncClient as client",
        "from google.pubsub_v1 import *; client = PublisherAsyncClient",
        "import google.pubsub_v1; client = google.pubsub_v1.PublisherAsyncClient",
        "import google.pubsub_v1.types; client = google.pubsub_v1.PublisherAsyncClient",
        "from google.cloud.pubsub_v1 import PublisherClient as client",
        "from google.pubsub_v1.services.publisher import PublisherClient as client",
        "from google.pubsub_v1 import gapic_version; client = type(gapic_version)",
        "from google import pubsub_v1; assert 'types' in dir(pubsub_v1); client = pubsub_v1.Topic",
    ],
)
def test_who_wants_the_clients_gets_them(wanted: str) -> None:
    """With the same types, and a package as it always was."""
    run(f"""
from convotic_protos import pubsub, schema
{wanted}
assert isinstance(client, type)
import google.pubsub_v1, sys
assert google.pubsub_v1.PubsubMessage is pubsub.PubsubMessage
assert google.pubsub_v1.types.pubsub is pubsub
assert google.pubsub_v1.types.schema is schema
assert type(sys.modules["google.pubsub_v1"]) is type(sys)
assert sys.modules["google.pubsub_v1"].__file__
""")


def test_a_package_that_is_there_already_is_left_alone() -> None:
    """And its types are used."""
    run("""
import google.pubsub_v1 as before
from convotic_protos import pubsub
import google.pubsub_v1 as after
assert before is after and before.types.pubsub is pubsub
""")


def test_many_threads_may_want_them_at_once() -> None:
    """They wait for the one import, as always."""
    run("""
import threading
from convotic_protos import pubsub
found, start = [], threading.Barrier(8)
def look():
    start.wait()
    from google.pubsub_v1 import SubscriberClient
    found.append(SubscriberClient)
threads = [threading.Thread(target=look) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(found) == 8 and len(set(found)) == 1, found
""")


def test_another_name_is_an_error() -> None:
    """Of the usual kind."""
    run("""
import convotic_protos
try:
    convotic_protos.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise SystemExit(1)
""")

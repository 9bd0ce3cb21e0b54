"""The message types come without Google's clients, and get along with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import convotic_protos
from convotic_protos import pubsub, rpc

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> None:
    """Run Python in a process of its own, in which nothing is imported."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("user", ["convotic_pubsub.session", "convotic_emulator.server"])
def test_transport_and_emulator_import_no_client(user: str) -> None:
    """They would take five times as long as the types."""
    run(
        "-c",
        f"import {user}, sys\n"
        "found = {'google.pubsub_v1', 'google.api_core', 'proto'} & sys.modules.keys()\n"
        "assert not found, found",
    )


def test_the_emulator_imports_nothing_that_its_wheel_does_not_bring() -> None:
    """Protobuf, hpack and the standard library are enough for all of a server process."""
    run(
        "-c",
        "import sys\n"
        "before = set(sys.modules)\n"
        "import convotic_emulator.__main__, convotic_emulator.process\n"
        "top = {name.partition('.')[0] for name in sys.modules.keys() - before}\n"
        "own = {'convotic_emulator', 'convotic_local', 'convotic_protos', 'hpack', 'google'}\n"
        "assert not top - own - sys.stdlib_module_names, top\n"
        "assert {n for n in sys.modules if n.count('.') == 1 and n.startswith('google.')}"
        " <= {'google.protobuf', 'google._upb'}",
    )


@pytest.mark.parametrize(
    "imports",
    [
        "import convotic_protos; import google.cloud.pubsub_v1",
        "import google.cloud.pubsub_v1; import convotic_protos",
    ],
)
def test_they_and_googles_own_are_in_one_process(imports: str) -> None:
    """Whichever comes first; what one writes the other reads."""
    run(
        "-c",
        f"{imports}\n"
        "from convotic_protos import pubsub as ours\n"
        "from google.pubsub_v1.types import PubsubMessage, Schema\n"
        "message = ours.PubsubMessage(data=b'1', attributes={'a': 'b'}, ordering_key='k')\n"
        "assert PubsubMessage.deserialize(message.SerializeToString()).attributes == {'a': 'b'}\n"
        "data = Schema.serialize(Schema(name='s', type_=Schema.Type.AVRO))\n"
        "assert ours.Schema.FromString(data).type == ours.Schema.AVRO",
    )


def test_the_descriptors_are_those_of_googles_packages() -> None:
    """`python scripts/protos.py` writes what is there."""
    run(str(ROOT / "scripts" / "protos.py"), "--check")


def test_well_known_types_have_their_methods() -> None:
    """Durations and timestamps are converted as protobuf's own are."""
    subscription = pubsub.Subscription()

    subscription.message_retention_duration.FromSeconds(600)

    assert subscription.message_retention_duration.ToTimedelta().total_seconds() == 600


def test_details_of_a_status_are_packed_and_unpacked() -> None:
    """An ErrorInfo survives the way through google.protobuf.Any."""
    status, found = rpc.Status(), rpc.ErrorInfo()
    status.details.add().Pack(rpc.ErrorInfo(reason="EXACTLY_ONCE_ACKID_FAILURE"))

    assert status.details[0].Unpack(found)

    assert found.reason == "EXACTLY_ONCE_ACKID_FAILURE"


def test_another_name_is_an_error() -> None:
    """Of the usual kind, and it says which package has no such message."""
    with pytest.raises(AttributeError, match=r"google\.pubsub\.v1 has no message 'Nothing'"):
        _ = convotic_protos.pubsub.Nothing

"""Processes: what a forked child may do, and that it ends and leaves its parent in peace."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from tests.support.waiting import PATIENCE

PREAMBLE = """
import os, sys, uuid
from convotic_pubsub import session_for
from convotic_pubsub.errors import PubsubTransportError
from convotic_pubsub.outgoing import OutgoingMessage
from kombu import Connection, Queue
options = {{"emulator_host": {address!r}, "prefix": "fork-"}}
url = "pubsub://test-project"

def in_child(function):
    pid = os.fork()
    if pid == 0:
        function()
        sys.exit(0)  # with all of Python's finalisation
    assert os.waitpid(pid, 0)[1] == 0

"""


def run(address: str, script: str) -> str:
    """Run a script; fail when it hangs or breaks."""
    text = PREAMBLE.format(address=address) + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        text=True,
        timeout=3 * PATIENCE,
        check=True,
    ).stdout


def test_a_forked_child_publishes_through_its_parent(broker: str) -> None:
    """As gunicorn with preload_app or a prefork child: confirmed, and the parent goes on."""
    script = """
        parent = Connection(url, transport_options=options)
        queue = parent.SimpleQueue("jobs")

        def publish():
            child = Connection(url, transport_options=options)
            for number in range(20):
                child.Producer().publish({"n": number}, routing_key="jobs", declare=[Queue("jobs")])
            one = OutgoingMessage("fork-jobs", b"[]")
            print("id", bool(session_for(url, options).publish(one).result(60)))

        in_child(publish)
        in_child(publish)
        bodies = []
        while len(bodies) < 42:
            try:
                message = queue.get(timeout=60)
            except ValueError:
                continue
            bodies.append(message.payload)
            message.ack()
            if len(bodies) == 40:
                break
        print(sorted(body["n"] for body in bodies) == sorted([*range(20), *range(20)]))
        parent.close()
        session_for(url, options).close()
        """

    assert run(broker, script).split() == ["id", "True", "id", "True", "True"]


def test_a_child_of_many_forks_uses_what_its_parent_left_open(our_emulator: str) -> None:
    """A producer made before the fork works after it, in several children at a time."""
    script = """
        connection = Connection(url, transport_options=options)
        producer = connection.Producer()
        producer.publish({"n": 0}, routing_key="many", declare=[Queue("many")])
        pids = []
        for number in range(1, 5):
            pid = os.fork()
            if pid == 0:
                producer.publish({"n": number}, routing_key="many")
                os._exit(0)
            pids.append(pid)
        print([os.waitpid(pid, 0)[1] for pid in pids])
        print(connection.default_channel.queue_purge("many"))
        session_for(url, options).close()
        """

    assert run(our_emulator, script).split("\n") == ["[0, 0, 0, 0]", "5", ""]


def test_a_forked_child_has_a_deleted_queue_made_again(our_emulator: str) -> None:
    """Its parent does it: the child's tasks vanish no more than a parent's."""
    script = """
        connection = Connection(url, transport_options=options)
        producer = connection.Producer()
        producer.publish({"n": 0}, routing_key="lost", declare=[Queue("lost")])
        session = session_for(url, options)
        session.resources.delete(session.spec("lost"))

        in_child(lambda: [producer.publish({"n": n}, routing_key="lost") for n in (1, 2)])

        print(connection.default_channel.queue_purge("lost"))
        session.close()
        """

    assert run(our_emulator, script).split() == ["2"]


def test_a_forked_child_is_told_what_it_can_not_do(our_emulator: str) -> None:
    """Consuming, and a session of other options, are refused with the reason instead of a hang."""
    script = """
        parent = session_for(url, options)

        def try_all():
            for attempt in (
                lambda: session_for(url, options).consume(parent.spec("jobs"), print),
                lambda: session_for(url, {**options, "prefix": "other-"}),
                lambda: Queue(f"{uuid.uuid4()}", auto_delete=True).bind(
                    Connection(url, transport_options=options).channel()
                ).declare(),
            ):
                try:
                    attempt()
                except PubsubTransportError as error:
                    print("spawn" in str(error))

        in_child(try_all)
        parent.close()
        """

    assert run(our_emulator, script).split() == ["True", "True", "True"]


def test_a_child_whose_parent_is_gone_is_told(our_emulator: str) -> None:
    """A publish without a parent to make it fails; it does not hang."""
    script = """
        session_for(url, options)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                os._exit(0)  # a grandchild has no relay and does no harm
            os.read(read_end, 1)
            try:
                message = OutgoingMessage("fork-jobs", b"[]")
                session_for(url, options).publish(message).result(60)
            except PubsubTransportError as error:
                print("is gone" in str(error), flush=True)
            os._exit(0)
        os.close(read_end)
        session_for(url, options).close()
        os.write(write_end, b"x")
        os.waitpid(pid, 0)
        """

    assert run(our_emulator, script).split() == ["True"]


def test_a_grandchild_gets_an_error_instead_of_a_hang(our_emulator: str) -> None:
    """A forked child's own child can't ask anybody: each way to publish says so at once."""
    script = """
        parent = session_for(url, options)
        one = OutgoingMessage("fork-jobs", b"[]")

        def fork_again():
            in_child(try_all)

        def try_all():
            session = session_for(url, options)
            for attempt in (
                lambda: session.publish(one, sending="directly").result(60),
                lambda: session.publish_confirmed(one),
                lambda: session.resources.ensure(parent.spec("jobs")),
                lambda: Connection(url, transport_options=options).Producer().publish(
                    {}, routing_key="jobs"
                ),
            ):
                try:
                    attempt()
                except PubsubTransportError as error:
                    print("forked child" in str(error), flush=True)

        in_child(fork_again)
        parent.close()
        """

    assert run(our_emulator, script).split() == ["True"] * 4

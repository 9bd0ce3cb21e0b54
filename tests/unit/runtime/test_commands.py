"""Remote control: what a worker answers."""

from __future__ import annotations

from typing import Any

from kombu.pidbox import Mailbox

from convotic_celery.runtime.worker.commands import AnsweringNode
from convotic_pubsub.errors import MessageTooLarge


class SmallMailbox(Mailbox):
    """Kombu's, whose broker takes answers of a thousand characters."""

    def _publish_reply(self, reply: Any, *_: Any, **__: Any) -> None:
        if len(str(reply)) > 1000:
            raise MessageTooLarge("message of 2,000 bytes")
        self.sent = reply


def test_an_answer_that_is_too_large_says_so() -> None:
    """The caller gets the reason in its place, from the same worker."""
    mailbox = SmallMailbox("pidbox", type="direct")
    node = AnsweringNode("celery@host", mailbox=mailbox)

    node.reply({"celery@host": "x" * 2000}, "reply", "key", "ticket")

    error = mailbox.sent["celery@host"]["error"]
    assert error == "the answer is too large: message of 2,000 bytes"

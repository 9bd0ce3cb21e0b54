"""Replacing a subscription to change its filter or ordering, which Pub/Sub can't do in place.

No message is lost, none gets another id, and the name stays, so that workers need no change::

    1  create a second subscription with the wanted settings      it gets what comes from now on
    2  give it the policy of the first                            IAM survives whatever happens next
    3  take a snapshot of the first                               it keeps the backlog, and the rest
    4  have the second deliver from the snapshot                  a rehearsal; nothing has changed
    5  delete the first
    6  create it again with the wanted settings
    7  give it the policy
    8  have it deliver from the snapshot
    9  delete the snapshot and the second subscription

Before step 5 an error leaves everything as it was. After it, snapshot and second subscription both
have all messages, and the next ``apply`` continues where this one ended. Messages acknowledged
between steps 3 and 5 are delivered again, with their ids; ``deduplicate=`` skips them.

The second subscription is also the lock: the process that creates it does the work, others wait
until it is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING, Final

from convotic_celery.errors import ConvoticError
from convotic_celery.topology.values import MIGRATION_LABEL, replacement_of, snapshot_of
from convotic_pubsub.errors import PublishError
from convotic_pubsub.topology import FIXED_FIELDS, subscription_differences

if TYPE_CHECKING:
    from convotic_pubsub.client.admin import Admin
    from convotic_pubsub.topology import SubscriptionSettings

__all__ = ["REPLACEMENT_STEPS", "ReplacementFailed", "replace_subscription"]

#: What is done, as a plan shows it.
REPLACEMENT_STEPS: Final = (
    "create {second} with the wanted settings; it gets what is published from now on",
    "give it the IAM policy of {name}",
    "take a snapshot of {name}: its backlog, and all that is published from now on",
    "have {second} deliver from the snapshot, as a rehearsal",
    "delete {name}",
    "create {name} with the wanted settings and its IAM policy",
    "have {name} deliver from the snapshot",
    "delete the snapshot and {second}",
)

#: A replacement takes seconds. An older one was cut short, and any process may continue it.
_STALE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.5
#: How often a subscription is deleted again that an old worker has made with its own settings.
_ATTEMPTS: Final = 20

_PENDING: Final = "pending"


class ReplacementFailed(ConvoticError):
    """A subscription could not be replaced; the text says what state it is in and what to do."""


def replace_subscription(
    admin: Admin,
    wanted: SubscriptionSettings,
    say: Callable[[str], None],
    *,
    stale_seconds: float = _STALE_SECONDS,
    now: Callable[[], float] = time.time,
) -> bool:
    """Replace a subscription, or continue a replacement that was cut short; see above.

    Safe when several processes do it at once. Blocks while another one works on it.

    Args:
        admin: of the server.
        wanted: what the subscription should become.
        say: called with each step before it is done.
        stale_seconds: after how long another's replacement counts as cut short.
        now: seconds since 1970.

    Returns:
        False: another process did it.

    Raises:
        ReplacementFailed: what exists is not what it was, and nothing more was changed.
        PubsubTransportError: a call failed; the next ``apply`` continues.
    """
    work = _Replacement(admin, wanted, say, now)
    if work.begin():
        work.rehearse(is_new=True)
    elif not work.wait_for_other(stale_seconds):
        return False
    else:
        work.rehearse(is_new=False)
    work.make_again()
    work.clean_up()
    return True


class _Replacement:
    def __init__(
        self,
        admin: Admin,
        wanted: SubscriptionSettings,
        say: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._admin = admin
        self._wanted = wanted
        self._say = say
        self._now = now
        self._second = replacement_of(wanted.name)
        self._snapshot = snapshot_of(wanted.name)

    def begin(self) -> bool:
        """Create the second subscription; False: there is one."""
        self._say(f"create {_short(self._second)}")
        labels = {**self._wanted.labels, MIGRATION_LABEL: str(int(self._now()))}
        return self._admin.create_subscription(
            replace(self._wanted, name=self._second, labels=labels)
        )

    def wait_for_other(self, stale_seconds: float) -> bool:
        """Wait until another process is done; True: it was cut short, so continue its work."""
        self._say("another process is replacing it: wait")
        while True:
            second = self._admin.get_subscription(self._second)
            if second is None:
                return False
            began = second.labels.get(MIGRATION_LABEL, "")
            if not began.isdecimal() or self._now() - int(began) > stale_seconds:
                self._say("it was cut short: continue it")
                return True
            Event().wait(_POLL_SECONDS)

    def rehearse(self, *, is_new: bool) -> None:
        """Secure policy and messages, and prove that they can be restored."""
        if self._find_old() is None:
            return  # it was deleted, or is made again already: all that was done before
        self._say("copy the IAM policy")
        self._admin.copy_policy(self._wanted.name, self._second)
        if is_new:  # one that is left over has acknowledged messages in it
            self._admin.delete_snapshot(self._snapshot)
        self._say(f"take snapshot {_short(self._snapshot)}")
        self._admin.create_snapshot(self._snapshot, self._wanted.name, self._wanted.labels)
        try:
            self._admin.seek(self._second, self._snapshot)
        except PublishError as error:  # refused: so would be the step that cannot be undone
            self.clean_up()
            raise ReplacementFailed(
                f"{self._wanted.name} is as it was: its messages can't be put into a subscription "
                f"with the wanted settings ({error}). Let workers empty it while nobody publishes, "
                "delete it, and apply again."
            ) from error

    def _find_old(self) -> SubscriptionSettings | None:
        """Return the subscription if it still has settings that can't be changed in place."""
        existing = self._admin.get_subscription(self._wanted.name)
        if existing is None:
            return None
        differences = subscription_differences(self._wanted, existing)
        return existing if any(d.setting in FIXED_FIELDS for d in differences) else None

    def make_again(self) -> None:
        """Delete the subscription and create it again, with its messages and its policy."""
        name = self._wanted.name
        labels = {**self._wanted.labels, MIGRATION_LABEL: _PENDING}
        for _ in range(_ATTEMPTS):
            if self._find_old() is not None:
                self._say(f"delete {_short(name)}")
                self._check_secured()
                self._admin.delete_subscription(name)
            self._say(f"create {_short(name)} again")
            if self._admin.create_subscription(replace(self._wanted, labels=labels)):
                break
            if self._find_old() is None:
                break  # by another process that went on with this, as wanted
        else:
            raise ReplacementFailed(
                f"{name} was made again with its old settings {_ATTEMPTS} times: workers of the "
                "old version do that. Deploy the new version, or start them with "
                f"CONVOTIC_PROVISION=verify, and apply again. Its messages are safe in "
                f"{self._snapshot} and {self._second}."
            )
        self._put_back()

    def _check_secured(self) -> None:
        """Check for the last time that the messages are safe before they are deleted."""
        if (
            self._admin.get_snapshot_labels(self._snapshot) is None
            or self._admin.get_subscription(self._second) is None
        ):
            raise ReplacementFailed(
                f"{self._snapshot} or {self._second} was deleted by somebody else; "
                f"{self._wanted.name} is as it was. Apply again."
            )

    def _put_back(self) -> None:
        name = self._wanted.name
        existing = self._admin.get_subscription(name)
        if existing is None or MIGRATION_LABEL not in existing.labels:
            return  # another process has done it
        if self._admin.get_snapshot_labels(self._snapshot) is None:
            raise ReplacementFailed(
                f"{self._snapshot} was deleted by somebody else. {name} is as wanted, but its "
                f"messages are in {self._second} only: consume them from there."
            )
        self._admin.copy_policy(self._second, name)
        self._say(f"have {_short(name)} deliver from the snapshot")
        self._admin.seek(name, self._snapshot)
        labels = {k: v for k, v in existing.labels.items() if k != MIGRATION_LABEL}
        self._admin.set_labels(existing, labels)

    def clean_up(self) -> None:
        """Delete what secured the messages, the mark of an unfinished replacement last."""
        self._say(f"delete the snapshot and {_short(self._second)}")
        self._admin.delete_snapshot(self._snapshot)
        self._admin.delete_subscription(self._second)


def _short(path: str) -> str:
    return path.rpartition("/")[2]

"""One subscription under any order of events, with the settings that change its behaviour."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.property.emulator.machine import SubscriptionMachine
from tests.support.generated import IS_FIXED

#: More by STATE_MACHINE_EXAMPLES (500 before a release).
EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "15"))


class OrderedMachine(SubscriptionMachine):
    ordered = True


class BackoffMachine(SubscriptionMachine):
    backoff_seconds = 5


class ExactlyOnceMachine(SubscriptionMachine):
    exactly_once = True


class ExactlyOnceOrderedMachine(SubscriptionMachine):
    exactly_once = True
    ordered = True


class RetainingMachine(SubscriptionMachine):
    retaining = True


class OrderedRetainingMachine(SubscriptionMachine):
    ordered = True
    retaining = True


class OrderedBackoffMachine(SubscriptionMachine):
    ordered = True
    backoff_seconds = 5


LIMITS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    derandomize=IS_FIXED,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

TestPlain = SubscriptionMachine.TestCase
TestOrdered = OrderedMachine.TestCase
TestBackoff = BackoffMachine.TestCase
TestOrderedBackoff = OrderedBackoffMachine.TestCase
TestExactlyOnce = ExactlyOnceMachine.TestCase
TestExactlyOnceOrdered = ExactlyOnceOrderedMachine.TestCase
TestRetaining = RetainingMachine.TestCase
TestOrderedRetaining = OrderedRetainingMachine.TestCase

for case in (
    TestPlain,
    TestOrdered,
    TestBackoff,
    TestOrderedBackoff,
    TestExactlyOnce,
    TestExactlyOnceOrdered,
    TestRetaining,
    TestOrderedRetaining,
):
    case.settings = LIMITS

del case  # pytest would collect it again

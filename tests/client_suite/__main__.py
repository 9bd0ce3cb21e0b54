"""Run the system tests of google-cloud-pubsub's own source distribution, unmodified.

``python -m tests.client_suite [--broker ours|google] [pytest arguments]``

They were made for the real service. Not selected: the ``rest`` half, which the client itself
refuses where PUBSUB_EMULATOR_HOST is set (TypeError in its constructor). The exit status is 0 when
all others pass; those that want Google's own test project are skipped.
"""

from __future__ import annotations

import argparse
import sys

from tests.support.foreign_suite import Suite, judge, run_emulator

SUITE = Suite(
    package="google-cloud-pubsub",
    requirements=(
        *("pytest>=9,<10", "pytest-timeout>=2.4,<3", "flaky>=3.8,<4", "mock>=5,<6"),
        *("psutil", "google-cloud-testutils>=1.6,<2"),
    ),
    parts=("tests/system.py",),
)


def main() -> int:
    """Prepare, run, and judge the outcome."""
    parser = argparse.ArgumentParser(prog="tests.client_suite")
    parser.add_argument("--broker", choices=["ours", "google"], default="ours")
    options, arguments = parser.parse_known_args()
    SUITE.prepare()
    which = arguments or ["-q", "system.py", "-k", "not rest"]
    with run_emulator(options.broker) as address:
        # The project's name is asked of google.auth, which wants credentials, but they are not
        # checked.
        environment = {"PUBSUB_EMULATOR_HOST": address, "GOOGLE_CLOUD_PROJECT": "client-suite"}
        (SUITE.tests / "conftest.py").write_text(CONFTEST)
        report = SUITE.run(["--timeout=120", *which], environment)
    return judge(report, options.broker, lambda _broker, _name: "")


CONFTEST = """\
# Written by convotic_celery's tests/client_suite: there are no credentials on this machine.
import google.auth
from google.auth.credentials import AnonymousCredentials

google.auth.default = lambda *_, **__: (AnonymousCredentials(), "client-suite")
"""

if __name__ == "__main__":
    sys.exit(main())

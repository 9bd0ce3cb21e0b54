"""Goes through all checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from convotic_celery.app import create_app
from convotic_celery.doctor.broker import check_retention, check_topology
from convotic_celery.doctor.control import check_control
from convotic_celery.doctor.finding import Finding
from convotic_celery.doctor.probe import check_probe
from convotic_celery.doctor.rights import check_agent, check_rights
from convotic_celery.doctor.store import check_store
from convotic_celery.doctor.versions import check_versions
from convotic_celery.errors import ConvoticError
from convotic_celery.topology.actual import read_actual, read_backlogs
from convotic_celery.topology.desired import make_desired
from convotic_pubsub.errors import AccessDenied, PubsubTransportError

if TYPE_CHECKING:
    from convotic_celery.settings import Settings
    from convotic_pubsub.session import Session

__all__ = ["examine"]

#: Stands for the workers' account where it is not known.
_WORKERS = "serviceAccount:WORKERS_SERVICE_ACCOUNT"


def examine(
    settings: Settings, *, probe: bool = True, timeout_seconds: float = 30.0
) -> Iterator[Finding]:
    """Yield what every check finds, as it is found; a check that fails is a finding too.

    Args:
        settings: of the deployment.
        probe: prove dead-lettering and replay with a message of the doctor's own.
        timeout_seconds: for each step of the probe.

    Raises:
        ConfigurationError, ModuleError: nothing can be examined.
    """
    app = create_app(settings, set_as_current=False)
    try:
        yield from _guarded("versions", "", check_versions)
        yield from _guarded("store", "look at its log", lambda: check_store(app.store))
        try:
            session = app.open_session()
        except (ConvoticError, PubsubTransportError) as error:
            is_denied = isinstance(error, AccessDenied)
            yield Finding(
                "credentials" if is_denied else "broker",
                "error",
                str(error),
                "gcloud auth application-default login, or CONVOTIC_CREDENTIALS_FILE"
                if is_denied
                else "start it, or correct CONVOTIC_BROKER_URL or PUBSUB_EMULATOR_HOST",
            )
            return
        yield from _examine_broker(settings, session, probe, timeout_seconds)
    finally:
        app.close()


def _examine_broker(
    settings: Settings, session: Session, probe: bool, timeout_seconds: float
) -> Iterator[Finding]:
    email, credentials = _examine_credentials(session)
    yield credentials
    if credentials.level == "error":
        return
    desired = make_desired(session.options)
    try:
        actual = read_actual(session, desired)
    except PubsubTransportError as error:
        yield Finding(
            "topology",
            "error",
            f"what exists can't be read: {error}",
            "give this account roles/pubsub.viewer on the project",
        )
        return
    member = f"serviceAccount:{email}" if email else _WORKERS
    mode = settings.provision
    existing = [each.name for each in desired.subscriptions if each.name in actual.subscriptions]
    backlogs = read_backlogs(session, existing)
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("topology", lambda: check_topology(session, desired, actual, mode)),
        ("control", lambda: check_control(session)),
    ]
    if existing:  # else there is nothing to have a right on
        checks += [
            ("rights", lambda: check_rights(session.admin, desired, actual, mode, member)),
            ("dead-letter IAM", lambda: check_agent(session.admin, desired, actual)),
            ("retention", lambda: check_retention(desired, actual, backlogs)),
        ]
    if probe:
        # As the probe's worker has them: a team's services may keep its storage elsewhere.
        own: dict[str, Any] = {"modules": [], "services": None, "middleware": []}
        for_probe = settings.model_copy(
            update={"provision": "create", "remote_control": False, **own}
        )
        checks.append(("probe", lambda: check_probe(for_probe, actual, timeout_seconds)))
    for name, check in checks:
        yield from _guarded(name, "", check)


def _examine_credentials(session: Session) -> tuple[str, Finding]:
    """Return this account's name, where it has one that is known, and what to say of it."""
    address = session.broker.address
    if session.broker.is_emulated:
        return "", Finding("credentials", "ok", f"an emulator at {address} needs none")
    try:
        email = session.account_name()
    except AccessDenied as error:
        return "", Finding("credentials", "error", str(error), "renew them")
    who = email or "an account that does not say its name"
    return email, Finding("credentials", "ok", f"{who} at {address}")


def _guarded(name: str, remedy: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yield a check's findings; a check that fails is a finding itself."""
    try:
        yield from check()
    except (ConvoticError, PubsubTransportError) as error:
        yield Finding(name, "error", str(error), remedy)

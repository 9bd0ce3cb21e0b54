"""Settings: read from the environment, checked, and never silently wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from convotic_celery.errors import ConfigurationError
from convotic_celery.settings import Settings


def test_defaults_need_nothing() -> None:
    """Without any variable, broker and store are the embedded ones."""
    settings = Settings()

    assert settings.broker_is_embedded
    assert settings.store_is_embedded
    assert settings.data_dir.name == ".convotic"
    settings.refuse_embedded_where_wrong()


def test_every_field_is_described() -> None:
    """``convotic settings`` has something to say about each."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prefix is CONVOTIC_, levels may be lower case, an empty variable is none."""
    monkeypatch.setenv("CONVOTIC_BROKER_URL", "pubsub://my-project")
    monkeypatch.setenv("CONVOTIC_LOG_LEVEL", "debug")
    monkeypatch.setenv("CONVOTIC_REDIS_URL", "")

    settings = Settings()

    assert settings.broker_url == "pubsub://my-project"
    assert settings.log_level == "DEBUG"
    assert settings.redis_url is None


@pytest.mark.parametrize("text", ["a, b:module", '["a", "b:module"]'])
def test_modules_are_a_list_in_json_or_by_commas(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Both spellings of CONVOTIC_MODULES mean the same."""
    monkeypatch.setenv("CONVOTIC_MODULES", text)

    assert Settings().modules == ["a", "b:module"]


def test_misspelt_variable_is_named_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown variable is an error."""
    monkeypatch.setenv("CONVOTIC_BROKERURL", "pubsub://my-project")

    with pytest.raises(ConfigurationError, match=r"CONVOTIC_BROKERURL.*CONVOTIC_BROKER_URL\?"):
        Settings()


def test_an_emulator_s_address_has_no_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is given in words, not as a pattern alone."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "http://localhost:8085")

    with pytest.raises(ConfigurationError, match=r"PUBSUB_EMULATOR_HOST: .*HOST:PORT of a running"):
        Settings()


def test_variables_of_tests_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test suite may have switches of its own."""
    monkeypatch.setenv("CONVOTIC_TEST_SLOW", "1")

    Settings()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONVOTIC_LOG_LEVEL", "loud", "CONVOTIC_LOG_LEVEL: Input should be"),
        ("CONVOTIC_MODULES", '["a"', "CONVOTIC_MODULES: "),
        ("CONVOTIC_HANDLER_OPTIONS", "{", "CONVOTIC_HANDLER_OPTIONS: "),
        ("CONVOTIC_HANDLER_OPTIONS", '{"a": 1}', r"CONVOTIC_HANDLER_OPTIONS\[a\]: "),
        ("CONVOTIC_REDIS_URL", "localhost", "CONVOTIC_REDIS_URL: .* must begin with redis://"),
        ("CONVOTIC_BROKER_URL", "my-project", "CONVOTIC_BROKER_URL: .* needs a scheme"),
        ("CONVOTIC_DEADLINE_GRACE", "-1", "CONVOTIC_DEADLINE_GRACE: "),
    ],
)
def test_wrong_value_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    """The error begins with the variable to change."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=expected):
        Settings()


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a listing nor an error tells the password."""
    settings = Settings(redis_url="redis://:hunter2@db")
    monkeypatch.setenv("CONVOTIC_REDIS_URL", "hunter2@db")

    with pytest.raises(ConfigurationError) as refused:
        Settings()

    assert "hunter2" not in f"{settings!r} {settings.model_dump_json()} {refused.value}"
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://:hunter2@db:six/0", "a port that is no number"),
        ("rediss://:hunter2@db/0?ssl_cert_reqs=maybe", "required, optional, none"),
    ],
)
def test_a_broken_store_url_is_refused_without_its_password(url: str, text: str) -> None:
    """At once and in one line; redis-py would in a traceback, when it connects."""
    with pytest.raises(ConfigurationError, match=text) as refused:
        Settings(redis_url=url)

    assert "hunter2" not in str(refused.value)


def test_unknown_keyword_is_refused() -> None:
    """As an unknown variable is."""
    with pytest.raises(ConfigurationError, match="Did you mean CONVOTIC_BROKER_URL"):
        Settings(brokr_url="pubsub://x")  # type: ignore[call-arg]  # the point of the test


def test_settings_are_frozen() -> None:
    """Settings can't change under running code."""
    with pytest.raises(ValueError, match="frozen"):
        Settings().env = "production"  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONVOTIC_ENV", "production"),
        ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
        ("K_SERVICE", "orders"),
        ("CLOUD_RUN_JOB", "orders"),
    ],
)
def test_embedded_servers_are_refused_in_the_cloud(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error says why, and which variables are missing."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError) as refused:
        Settings().refuse_embedded_where_wrong()

    assert name in str(refused.value)
    assert "CONVOTIC_BROKER_URL" in str(refused.value)
    assert "CONVOTIC_REDIS_URL" in str(refused.value)


def test_only_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Google's emulator as broker, the store alone is embedded."""
    monkeypatch.setenv("K_SERVICE", "orders")
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "localhost:8085")

    with pytest.raises(ConfigurationError) as refused:
        Settings().refuse_embedded_where_wrong()

    assert "CONVOTIC_BROKER_URL" not in str(refused.value)
    assert "CONVOTIC_REDIS_URL" in str(refused.value)


def test_production_runs_with_real_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is refused once both addresses are given, or if it is allowed."""
    monkeypatch.setenv("CONVOTIC_ENV", "production")

    Settings(broker_url="pubsub://p", redis_url="redis://db").refuse_embedded_where_wrong()
    Settings(allow_embedded=True).refuse_embedded_where_wrong()


@pytest.mark.parametrize("text", ['{"team": "shop", "tier": "2"}', "team=shop, tier=2"])
def test_labels_are_json_or_pairs(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Both spellings of CONVOTIC_LABELS mean the same."""
    monkeypatch.setenv("CONVOTIC_LABELS", text)

    assert Settings().labels == {"team": "shop", "tier": "2"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("CONVOTIC_LABELS", "Team=shop", "Team=shop: a label's name"),
        ("CONVOTIC_PREFIX", "a/b", "CONVOTIC_PREFIX: "),
        ("CONVOTIC_PUBSUB_ENDPOINT", "https://pubsub", "CONVOTIC_PUBSUB_ENDPOINT: "),
        ("CONVOTIC_CREDENTIALS_FILE", "/no/such/key.json", "CONVOTIC_CREDENTIALS_FILE: "),
        ("CONVOTIC_IMPERSONATE_SERVICE_ACCOUNT", "me", "CONVOTIC_IMPERSONATE_SERVICE_ACCOUNT: "),
        ("CONVOTIC_PULL_MODE", "push", "CONVOTIC_PULL_MODE: "),
        ("CONVOTIC_TASK_VISIBILITY_TIMEOUT", "5", "CONVOTIC_TASK_VISIBILITY_TIMEOUT: "),
    ],
)
def test_wrong_options_of_pubsub_name_their_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    """They are refused before anything is connected."""
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigurationError, match=expected):
        Settings()


def test_the_page_names_settings_that_exist() -> None:
    """Each row of the table of docs/operations.md is a variable."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text()
    table = page.partition("## Settings of Pub/Sub")[2]

    rows = re.findall(r"^\| `([A-Z_]+)`", table, re.MULTILINE)

    assert len(rows) == 14
    assert [name for name in rows if name.lower() not in Settings.model_fields] == []

"""Section [edge]: every option has a default, a text and a clear error."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_otel.errors import ConfigurationInvalid
from edge_otel.settings import LogFolder, Settings, documented_options
from edge_otel.telemetry import central


class Configured:
    """Stands for Airflow's configuration: the interface that the settings declare."""

    def __init__(self, section: str = "edge", **options: str) -> None:
        self._options = {(section, name): text for name, text in options.items()}

    def get(self, section: str, key: str, **kwargs: object) -> str | None:
        return self._options.get((section, key), kwargs.get("fallback"))  # type: ignore[return-value]


def test_without_configuration_the_defaults_are_taken():
    assert Settings.read(Configured()) == Settings()


def test_options_are_read_in_their_types():
    settings = Settings.read(
        Configured(api_enabled=" yes ", heartbeat_interval="12.5", log_chunk_bytes="4096", api_url=" https://x ")
    )
    assert (settings.api_enabled, settings.heartbeat_interval, settings.log_chunk_bytes, settings.api_url) == (
        True,
        12.5,
        4096,
        "https://x",
    )


def test_an_empty_option_is_the_default():
    assert Settings.read(Configured(heartbeat_interval="", api_enabled=" ")) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("api_enabled", "maybe", "must be True or False"),
        ("accept_shared_secret_tokens", "2", "must be True or False"),
        ("heartbeat_interval", "often", "must be a number"),
        ("heartbeat_interval", "0.1", "at least 0.5"),
        ("heartbeat_interval", "nan", "at least 0.5"),
        ("heartbeat_interval", "inf", "at least 0.5"),
        ("log_chunk_bytes", "1.5", "must be a whole number"),
        ("log_chunk_bytes", "10", "at least 1024"),
        ("log_chunk_bytes", "9" * 30, "at most"),
        ("log_chunk_bytes", "16777217", "at most"),
        ("worker_concurrency", "0", "at least 1"),
        ("offer_timeout", "-1", "at least 1"),
        ("offer_timeout", "1e300", "at most"),
        ("job_success_purge", "1e300", "at most"),
        ("worker_event_retention_days", "1e18", "at most"),
        ("minimum_acceptable_core_version_for_workers", "three", "must be a version"),
        ("minimum_acceptable_edge_version_for_workers", "0.1.x", "must be a version"),
    ],
)
def test_a_bad_option_is_refused_by_name_with_the_rule(name, text, rule):
    with pytest.raises(ConfigurationInvalid) as refused:
        Settings.read(Configured(**{name: text}))
    assert f"[edge] {name} = {text!r}" in str(refused.value)
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("collector:4318/HUSH", "begins with http"),
        ("grpc://HUSH:4317", "begins with http"),
        ("http:///HUSH", "names a host"),
        ("http://[HUSH", "names a host"),
        ("http://collector:HUSH", "names a host"),
        ("http://user:HUSH@collector:4318", "no user and password"),
        ("http://collector:4318/?token=HUSH", "must end with its path"),
        ("http://collector:4318/#HUSH", "must end with its path"),
    ],
)
def test_a_collectors_url_must_be_one_that_paths_can_be_added_to_and_is_not_repeated(url, rule):
    with pytest.raises(ConfigurationInvalid, match=rule) as refused:
        Settings.read(Configured(otlp_endpoint=url))
    assert "[edge] otlp_endpoint" in str(refused.value)
    assert "HUSH" not in str(refused.value)


@pytest.mark.parametrize("value", ["Bearer%20HUSH%0A", "%09Bearer HUSH%0D%0A", " Bearer%20HUSH "])
def test_white_space_around_a_collectors_credential_is_not_part_of_it(value):
    settings = Settings.read(Configured(otlp_endpoint="http://c:4318/", otlp_headers=f"authorization={value}"))
    assert central.collector(settings, {}) == central.Collector("http://c:4318", {"authorization": "Bearer HUSH"})


@pytest.mark.parametrize(
    "text", ["a=HUSH%0Ax", "a=HUSH%0D%0Ab:c", "a=HUSH%00", "a=HUSH%7F", "a=HUSH%E2%82%AC", "a b=HUSH"]
)
@pytest.mark.parametrize(
    "option", ["[edge] otlp_headers", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"]
)
def test_headers_that_cannot_be_sent_are_refused_by_name_and_not_repeated(option, text):
    if option.startswith("OTEL"):
        settings, environment = Settings(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", option: text}
    else:
        settings, environment = Settings(otlp_endpoint="http://c:4318", otlp_headers=text), {}
    with pytest.raises(ConfigurationInvalid) as refused:
        central.collector(settings, environment)
    assert option in str(refused.value)
    assert "HUSH" not in str(refused.value)


def test_every_option_is_documented_with_type_and_default():
    options = documented_options()
    assert options.keys() == Settings.__dataclass_fields__.keys()
    for name, described in options.items():
        assert described["description"].endswith((".", ")")), name
        assert described["type"] in ("string", "boolean", "integer", "float")
        default = getattr(Settings(), name)
        assert described["default"] == (str(default) if default != "" else None)


def test_documented_defaults_and_examples_are_accepted():
    for name, described in documented_options().items():
        for text in (described["default"], described["example"]):
            Settings.read(Configured(**{name: text} if text else {}))


def test_the_log_folder_and_its_permissions_are_airflows():
    conf = Configured(
        "logging",
        base_log_folder="/var/log/airflow",
        file_task_handler_new_folder_permissions="0o750",
        file_task_handler_new_file_permissions="640",
    )
    assert LogFolder.read(conf) == LogFolder(Path("/var/log/airflow"), 0o750, 0o640)


def test_a_permission_that_is_no_octal_number_is_refused_by_name():
    conf = Configured("logging", file_task_handler_new_file_permissions="rw-r--r--")
    with pytest.raises(ConfigurationInvalid, match="file_task_handler_new_file_permissions"):
        LogFolder.read(conf)

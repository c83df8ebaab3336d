"""One test for each bug that somebody found, named after it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from cavendish.errors import SettingsError, SubmissionError
from cavendish.model import UpstreamErrorKind
from cavendish.policy.addresses import may_dial, webhook_complaint
from cavendish.policy.verdicts import Verdict, classify
from cavendish.settings import Settings
from cavendish.submission import check
from cavendish_worker.polling.upstream_errors import retry_after, upstream_error


def test_a_date_of_an_absurd_year_in_retry_after_is_no_date() -> None:
    assert retry_after({"retry-after": "Wed, 21 Oct 99999999999 07:28:00 GMT"}) is None


@pytest.mark.parametrize("token", ["sec\nret", "schlüssel", "two words"])
def test_a_token_from_the_file_that_no_header_can_carry_is_refused_and_not_shown(
    tmp_path: Path, token: str
) -> None:
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps({"a": token}))
    with pytest.raises(SettingsError) as caught:
        Settings.load({"CAVENDISH_API_TOKENS_FILE": str(file)})
    assert token not in str(caught.value)


@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_a_password_in_a_url_is_neither_in_repr_nor_in_a_complaint(name: str) -> None:
    sound = Settings.load({f"CAVENDISH_{name}": "redis://:hunter2@host:6379/0"})
    assert "hunter2" not in repr(sound)
    with pytest.raises(SettingsError) as caught:
        Settings.load({f"CAVENDISH_{name}": "carrier-pigeon://:hunter2@host"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["https:foo", "https:///foo", "https://x:99999", "http://x?y=1"])
def test_an_api_url_that_cannot_be_asked_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Settings.load({"CAVENDISH_API_URL": url})


@pytest.mark.parametrize(
    "response",
    [
        {"message": "Content moderated"},
        {"status": "weird"},
        {"state": "running"},
        {"success": True, "state": "processing"},
    ],
)
def test_a_finished_record_without_media_that_does_not_say_success_is_no_success(
    response: dict[str, object],
) -> None:
    assert classify({"finished_at": 1.7e9, "response": response}).verdict is Verdict.PENDING


@pytest.mark.parametrize(
    "key",
    [
        "status_url",
        "webhook_url",
        "poll_url",
        "init_image_urls",
        "prompt_image_url",
        "callback_url",
    ],
)
def test_a_url_that_is_no_result_makes_no_success_of_an_acknowledgement(key: str) -> None:
    assert (
        classify({"response": {"success": True, "task_id": "1", key: "https://p/x"}}).verdict
        is Verdict.PENDING
    )


def test_a_failure_inside_wins_over_a_finished_job_around_it() -> None:
    assert (
        classify({"status": "finished", "response": {"state": "failed"}}).verdict is Verdict.FAILED
    )


def test_a_completed_job_needs_no_progress_of_100() -> None:
    assert (
        classify(
            {"response": {"state": "completed", "progress": 90, "video_url": "https://x/y"}}
        ).verdict
        is Verdict.SUCCEEDED
    )


@pytest.mark.parametrize(
    "wrong", [{"deadline": 10**400}, {"service": {(1, 2): 3}}, {"service": 10**5000}]
)
def test_values_that_no_json_can_say_are_refused_like_any_other(wrong: dict[str, object]) -> None:
    with pytest.raises(SubmissionError):
        check(**{"service": "nano-banana", **wrong}, default_deadline=60.0, allowed=())  # type: ignore[arg-type]


def test_a_bare_string_that_is_a_known_code_is_that_code() -> None:
    assert upstream_error(403, {}, {"error": "used_up"}).why is UpstreamErrorKind.ACCOUNT


def test_a_credit_limit_is_no_batch_limit() -> None:
    assert (
        upstream_error(
            400, {}, {"error": {"code": "bad_request", "message": "credit limit exceeded"}}
        ).why
        is not UpstreamErrorKind.TOO_MANY
    )


@pytest.mark.parametrize("host", ["127。0。0。1", "１２７.0.0.1", "127%2e0.0.1"])
def test_a_private_address_in_another_alphabet_is_refused_at_submit(host: str) -> None:
    assert webhook_complaint(f"http://{host}/") is not None


def test_an_address_with_a_scope_is_never_public() -> None:
    assert not may_dial(ip_address("::ffff:8.8.8.8%1"))

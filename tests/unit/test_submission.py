"""What a producer may hand in, and how it is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.errors import SubmissionError
from cavendish.model import Task
from cavendish.policy.addresses import parse_networks
from cavendish.service_names import KNOWN
from cavendish.submission import SubmitOptions, check, check_ids, id_complaint

HOOK = "https://hook.example/x"


def options(allowed: str = "", **said: Any) -> SubmitOptions:
    return check(
        **{"service": "nano-banana", "deadline": 3600.0, **said},
        allowed=parse_networks(allowed),
    )


def complaint(allowed: str = "", **said: Any) -> str:
    with pytest.raises(SubmissionError) as refused:
        options(allowed, **said)
    return str(refused.value)


# --- ids


@pytest.mark.parametrize(
    "task_id",
    [
        "a",
        "4d320ead-4af4-4a55-8f3e-f2afebdf4fd0",
        "x" * 200,
        "a b",
        "a:b/c{d}",
        "идентификатор",
        "🍌",
    ],
)
def test_a_printable_id_of_up_to_200_characters_is_sound(task_id: str) -> None:
    assert id_complaint(task_id) is None


@pytest.mark.parametrize(
    ("task_id", "says"),
    [
        (None, "not NoneType"),
        (5, "not int"),
        (True, "not bool"),
        (1.5, "not float"),
        (b"a", "not bytes"),
        (["a"], "not list"),
        ({"id": "a"}, "not dict"),
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 201, "has 201"),
        ("a\nb", "control characters"),
        ("a\x00", "control characters"),
        ("a\x7f", "control characters"),
        ("a\u2028b", "control characters"),
        ("a\ud800", "control characters"),
        (" a", "white space"),
        ("a ", "white space"),
    ],
)
def test_an_id_that_cannot_be_one_is_refused_with_its_reason(task_id: object, says: str) -> None:
    assert says in str(id_complaint(task_id))


def test_a_uuid_is_the_same_id_as_its_text() -> None:
    """Also in a `Task`, and in upper case as some write it: only its text counts."""
    one = UUID("4D320EAD-4AF4-4A55-8F3E-F2AFEBDF4FD0")
    checked = check_ids([one, Task(one, {"n": 1}), str(one)])
    assert checked.answers == [(str(one), None)] * 3
    assert checked.sound == ["4d320ead-4af4-4a55-8f3e-f2afebdf4fd0"]


def test_what_is_neither_text_nor_uuid_is_refused_alone() -> None:
    """A Decimal, a date and bytes are carried by Celery's JSON too, and are no ids."""
    checked = check_ids([Decimal(7), date(2026, 11, 28), b"a", "good"])
    assert [why for _, why in checked.answers] == [
        "an id must be a string, not Decimal",
        "an id must be a string, not date",
        "an id must be a string, not bytes",
        None,
    ]
    assert checked.sound == ["good"]


@given(st.text())
def test_a_sound_id_can_be_written_to_redis(task_id: str) -> None:
    if id_complaint(task_id) is None:
        assert task_id.encode().decode() == task_id
        assert "\n" not in task_id


# --- service, account, again, labels


@pytest.mark.parametrize(
    "service",
    [
        None,
        5,
        True,
        "",
        " ",
        "Nano",
        "a/b",
        "a b",
        "a_b",
        "../x",
        "a\n",
        "x" * 41,
        "ñ",
        ["a"],
        {"a": 1},
        b"a",
    ],
)
def test_a_service_that_is_no_name_is_refused(service: object) -> None:
    assert complaint(service=service).startswith("The service ")


@pytest.mark.parametrize(
    ("service", "nearest"),
    [
        ("nano-bananna", "nano-banana"),
        ("nanobanana", "nano-banana"),
        ("nano_banana", "nano-banana"),
        ("Nano Banana", "nano-banana"),
        ("kikart", "kickart"),
        ("midjurney", "midjourney"),
        ("veo3", "veo"),
    ],
)
def test_a_misspelt_service_is_refused_with_the_nearest_one(service: str, nearest: str) -> None:
    assert f"Did you mean {nearest}?" in complaint(service=service)


def test_a_service_like_no_other_is_refused_without_a_guess() -> None:
    said = complaint(service="bogus-0")
    assert said == "The service 'bogus-0' is not known. CAVENDISH_SERVICES can allow other names."


@pytest.mark.parametrize("service", sorted(KNOWN))
def test_every_known_service_is_taken(service: str) -> None:
    assert options(service=service).service == service


def test_a_service_of_the_settings_is_taken_and_proposed() -> None:
    assert options(service="banana-next", services=("banana-next",)).service == "banana-next"
    assert "Did you mean banana-next?" in complaint(service="banana-nxt", services=("banana-next",))
    assert options(service="anything", services=("*",)).service == "anything"
    assert complaint(service="no_name", services=("*",)).startswith("The service ")


@pytest.mark.parametrize("account", [None, 5, "", "A", "a/b", "a b", "a\n", "x" * 41, ["a"]])
def test_an_account_that_is_no_name_is_refused(account: object) -> None:
    assert complaint(account=account).startswith("The account ")


@pytest.mark.parametrize("restart", [None, 0, 1, "true", []])
def test_again_is_true_or_false_and_nothing_else(restart: object) -> None:
    assert complaint(restart=restart) == "`restart` must be true or false."


@pytest.mark.parametrize("label", ["model", "producer"])
@pytest.mark.parametrize("value", [5, True, "x" * 101, "a\nb", "\ud800", ["a"]])
def test_a_label_that_is_no_short_text_is_refused(label: str, value: object) -> None:
    assert complaint(**{label: value}).startswith(f"The {label} must be")


def test_what_is_not_said_has_its_default() -> None:
    assert options() == SubmitOptions(
        "nano-banana", "default", (), 3600.0, "", "", "", restart=False
    )


def test_what_is_said_is_kept() -> None:
    said = options(
        service="x" * 40,
        services=("*",),
        account="a_b-9",
        webhook=HOOK,
        deadline=900,
        metadata={"n": "ñ"},
        model="m" * 100,
        producer="p",
        restart=True,
    )
    assert said == SubmitOptions(
        "x" * 40, "a_b-9", (HOOK,), 900.0, '{"n":"ñ"}', "m" * 100, "p", restart=True
    )


def test_a_long_value_is_shown_shortened() -> None:
    assert len(complaint(service="X" * 5000)) < 200


# --- deadline


@pytest.mark.parametrize("deadline", [1, 1.0, 2_592_000, 2_592_000.0])
def test_a_deadline_lies_within_a_second_and_30_days(deadline: float) -> None:
    assert options(deadline=deadline).deadline == deadline


@pytest.mark.parametrize(
    "deadline",
    [0, 0.99, -1, 2_592_001, 30 * 86400 + 1e-6, float("nan"), float("inf"), float("-inf"), 10**30],
)
def test_a_deadline_out_of_range_is_refused(deadline: float) -> None:
    assert complaint(deadline=deadline).startswith(
        "The deadline must lie within 1 s and 30 days (2592000 s), not "
    )


@pytest.mark.parametrize("deadline", [True, False, "900", "", [], {}, b"9"])
def test_a_deadline_that_is_no_number_is_refused(deadline: object) -> None:
    assert complaint(deadline=deadline).startswith("The deadline must be a number of seconds, not ")


# --- metadata


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ("text", "must be a JSON object, not str"),
        (5, "must be a JSON object, not int"),
        ([], "must be a JSON object, not list"),
        (True, "must be a JSON object, not bool"),
        ({"a": float("nan")}, "JSON cannot express"),
        ({"a": float("inf")}, "JSON cannot express"),
        ({"a": object()}, "JSON cannot express"),
        ({UUID(int=1): "a"}, "JSON cannot express"),
        ({"a": {1, 2}}, "JSON cannot express"),
        ({(1, 2): "a"}, "JSON cannot express"),
        ({"a": "x" * 8192}, "larger than 8 KiB"),
        ({"a": "ñ" * 4096}, "larger than 8 KiB"),
    ],
)
def test_metadata_that_is_no_small_json_object_is_refused(metadata: object, says: str) -> None:
    assert says in complaint(metadata=metadata)


def test_what_celerys_json_carries_becomes_texts_in_the_metadata() -> None:
    """UUID and Decimal as Python prints them, times in ISO 8601, bytes in base64."""
    at = datetime(2026, 11, 28, 17, 30, 1, 5, UTC)
    given = {
        "uuid": UUID(int=7),
        "naive": at.replace(tzinfo=None),
        "list": [at, {"date": at.date(), "time": time(9, 30)}],
        "price": Decimal("19.90"),
        "bytes": b"\xff\x00a",
    }
    assert json.loads(options(metadata=given).metadata) == {
        "uuid": "00000000-0000-0000-0000-000000000007",
        "naive": "2026-11-28T17:30:01.000005",
        "list": [
            "2026-11-28T17:30:01.000005+00:00",
            {"date": "2026-11-28", "time": "09:30:00"},
        ],
        "price": "19.90",
        "bytes": "/wBh",
    }


def test_metadata_that_holds_itself_or_is_endlessly_deep_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["me"] = circle
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"d": deep}
    assert "nested" in complaint(metadata=circle)
    assert "nested" in complaint(metadata=deep)


def test_metadata_fills_its_8_kib_and_keeps_broken_unicode_escaped() -> None:
    assert len(options(metadata={"a": "x" * (8192 - 8)}).metadata) == 8192
    assert options(metadata={"a": "\ud800"}).metadata == '{"a":"\\ud800"}'
    assert options(metadata={}).metadata == "{}"


# --- webhooks


@pytest.mark.parametrize(
    "url",
    [
        HOOK,
        "http://hook.example",
        "HTTPS://hook.example:8443/a?b=c",
        "https://8.8.8.8/",
        "https://[2001:4860:4860::8888]/",
        "https://xn--bcher-kva.example/",
        "https://hook.example/@me?to=a@b.example",
        "https://hook.example/" + "x" * 2027,
    ],
)
def test_a_public_webhook_is_taken(url: str) -> None:
    assert options(webhook=url).webhooks == (url,)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "must be a URL"),
        (5, "must be a URL"),
        (True, "must be a URL"),
        ({"url": HOOK}, "must be a URL"),
        ([None], "must be a URL"),
        ("https://hook.example/" + "x" * 2028, "at most 2048"),
        ("https://hook.example/a b", "white space"),
        ("https://hook.example/\n", "white space"),
        ("https://hook.example/\x00", "control characters"),
        ("https://hook.example\\@inside/", "backslash"),
        ("https://\ud800/", "control characters"),
        ("https://hook.example/a?b=c#d", "#fragment"),
        ("ftp://hook.example/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("hook.example/x", "http:// or https://"),
        ("//hook.example/x", "http:// or https://"),
        ("https://", "with a host"),
        ("https:///x", "with a host"),
        ("https://user@hook.example/", "user name or password"),
        ("https://user:word@hook.example/", "user name or password"),
        ("https://@hook.example/", "user name or password"),
        ("https://hook.example@127.0.0.1/", "user name or password"),
        ("https://hook.example:0/", "port 0"),
        ("https://hook.example:65536/", "well-formed"),
        ("https://hook.example:x/", "well-formed"),
        ("https://[::1/", "well-formed"),
    ],
)
def test_a_webhook_that_is_no_plain_url_is_refused(url: object, says: str) -> None:
    assert says in complaint(webhook=url)


@pytest.mark.parametrize(
    "host",
    "127.0.0.1 127.1 2130706433 017700000001 0177.0.0.1 0x7f000001 0x7f.0.0.1 0x7F.1 127.0.0.1. "
    "localhost LOCALHOST localhost. "
    "a.localhost [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [64:ff9b::7f00:1] "
    "0 0.0.0.0 1 10.0.0.1 10.1 "
    "167772161 012.0.0.1 0xa.1 172.16.0.1 192.168.1.1 169.254.169.254 0xa9fea9fe 100.64.0.1 "
    "168.63.129.16 224.0.0.1 [fe80::1] "
    "[fd00::1] [2002:7f00:1::] [2001:db8::1]".split(),
)
def test_a_webhook_to_an_inside_address_is_refused_in_every_spelling(host: str) -> None:
    for url in (f"http://{host}/x", f"https://{host}:8443"):
        assert complaint(webhook=url).endswith(
            "which is not public and not in CAVENDISH_WEBHOOK_ALLOW."
        )


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "[::1]",
    ],
)
def test_an_inside_address_is_taken_where_the_operator_listed_it(host: str) -> None:
    assert options("127.0.0.0/8,::1", webhook=f"http://{host}:9000/x").webhooks == (
        f"http://{host}:9000/x",
    )


def test_several_webhooks_are_taken_once_each_and_at_most_eight() -> None:
    eight = [f"{HOOK}{n}" for n in range(8)]
    assert options(webhook=eight).webhooks == tuple(eight)
    assert options(webhook=(HOOK, HOOK)).webhooks == (HOOK,)
    assert options(webhook=[]).webhooks == ()
    assert complaint(webhook=[*eight, HOOK]) == "At most 8 webhooks may be given, not 9."


def test_one_bad_webhook_refuses_all() -> None:
    assert "not public" in complaint(webhook=[HOOK, "http://127.0.0.1/"])


def test_the_name_of_a_registered_endpoint_is_taken_among_urls() -> None:
    assert options(webhook="shop").webhooks == ("shop",)
    assert options(webhook=["shop", HOOK, "shop", "shop2"]).webhooks == ("shop", HOOK, "shop2")


@pytest.mark.parametrize(
    "name",
    [
        "Shop",
        "2shop",
        "shop.x",
        "sho p",
        "shop\n",
        "a" * 41,
        "abcdefabcdefabcd",
        "example.com",
        "ñ",
    ],
)
def test_a_webhook_that_is_neither_a_name_nor_a_url_is_refused_as_both(name: str) -> None:
    assert complaint(webhook=name).startswith("Refused: the name of an endpoint has ")
    assert complaint(webhook=["shop", name]).endswith(", or must be a URL.")


def test_a_webhook_to_a_port_that_is_closed_to_them_is_refused() -> None:
    assert check_ports("https://hook.example:8443/x", (range(443, 444),)) is None
    assert check_ports("https://hook.example/x", (range(443, 444),)) == ("https://hook.example/x",)
    assert check_ports("shop", (range(443, 444),)) == ("shop",)


def check_ports(webhook: str, ports: tuple[range, ...]) -> tuple[str, ...] | None:
    try:
        return check(
            service="veo", webhook=webhook, deadline=3600.0, allowed=(), ports=ports
        ).webhooks
    except SubmissionError:
        return None


# --- traceparent

SOUND = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("given", [SOUND, SOUND[:-2] + "00", "cc" + SOUND[2:]])
def test_a_trace_context_of_w3c_is_kept_as_it_is(given: str) -> None:
    assert options(traceparent=given).trace == given
    assert options().trace == ""


@pytest.mark.parametrize(
    "given",
    [
        "",
        7,
        [SOUND],
        SOUND.upper(),
        "ff" + SOUND[2:],
        SOUND + "-more",
        SOUND + "\n",
        SOUND[:-1],
        SOUND.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        SOUND.replace("b7ad6b7169203331", "0" * 16),
        SOUND.replace("b7", "g7"),
    ],
)
def test_what_is_no_trace_context_is_refused_in_one_sentence(given: object) -> None:
    assert complaint(traceparent=given).startswith("Refused: a traceparent looks like 00-")

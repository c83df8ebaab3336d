"""Standard Webhooks v1 and v1a.

The published vectors, and the reference library as a judge of v1.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from cavendish.endpoints.signing import (
    TOLERANCE,
    headers,
    new_secret,
    new_signing_key,
    public_key,
    sign,
    signed_content,
    verify,
)
from cavendish.environment.env_parsers import webhook_secret_key

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'
VECTORS = [
    (
        SECRET,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        NOW,
        BODY,
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        OTHER,
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1_649_367_553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
]
#: Vector 3 is signed with 18 bytes; the standard asks for at least 24.
SHORT_SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
SHORT = ("msg_loFOjxBNrRLzqYUf", 1_731_705_121, b'{"event_type":"ping","data":{"success":true}}')
#: Vector 4 is the webhook of vector 1, signed with ed25519.
PRIVATE = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


@pytest.mark.parametrize(("secret", "webhook_id", "timestamp", "body", "signature"), VECTORS)
def test_the_published_vectors_come_out(
    secret: str, webhook_id: str, timestamp: int, body: bytes, signature: str
) -> None:
    assert sign(secret, webhook_id, timestamp, body) == signature
    received = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }
    assert headers([secret], webhook_id, timestamp, body) == received
    assert verify(secret, received, body, timestamp) is None


def test_the_published_vector_with_too_short_a_secret_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes") as refused:
        sign(SHORT_SECRET, *SHORT)
    assert SHORT_SECRET.removeprefix("whsec_") not in str(refused.value)


def test_the_published_vector_with_too_short_a_secret_is_over_the_bytes_that_we_sign() -> None:
    key = base64.b64decode(SHORT_SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, signed_content(*SHORT), hashlib.sha256).digest()
    assert base64.b64encode(digest) == b"rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_the_published_ed25519_vector_comes_out() -> None:
    webhook_id, timestamp, body = VECTORS[0][1:4]
    received = {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": V1A,
    }
    assert sign(PRIVATE, webhook_id, timestamp, body) == V1A
    assert headers([PRIVATE], webhook_id, timestamp, body) == received
    assert public_key(PRIVATE) == PUBLIC
    assert verify(PUBLIC, received, body, timestamp) is None


def test_a_private_key_of_the_seed_alone_is_the_same_key() -> None:
    seed = "whsk_" + base64.b64encode(base64.b64decode(PRIVATE.removeprefix("whsk_"))[:32]).decode()
    assert public_key(seed) == PUBLIC
    assert sign(seed, *VECTORS[0][1:4]) == V1A


def test_a_new_private_key_carries_its_public_half_and_is_never_the_same() -> None:
    key = new_signing_key()
    assert base64.b64decode(key.removeprefix("whsk_"))[32:] == base64.b64decode(
        public_key(key).removeprefix("whpk_")
    )
    assert len({new_signing_key() for _ in range(50)}) == 50


def test_a_private_key_with_the_public_half_of_another_is_refused() -> None:
    halves = [base64.b64decode(key.removeprefix("whsk_")) for key in (PRIVATE, new_signing_key())]
    with pytest.raises(ValueError, match="does not belong to its seed"):
        sign(
            "whsk_" + base64.b64encode(halves[0][:32] + halves[1][32:]).decode(), "msg_1", NOW, BODY
        )


@pytest.mark.parametrize(
    "rest", ["", "c2hvcnQ=", "not base64 ñ", "A" * 43, "A" * 82 + "==", "_" * 43 + "="]
)
def test_a_key_that_is_ill_formed_is_refused_without_showing_it(rest: str) -> None:
    with pytest.raises(
        ValueError, match="must be 'whsk_' followed by the base64 of 32 or 64 bytes"
    ) as private:
        sign(f"whsk_{rest}", "msg_1", NOW, BODY)
    with pytest.raises(
        ValueError, match="must be 'whpk_' followed by the base64 of 32 bytes"
    ) as public:
        verify(f"whpk_{rest}", headers([SECRET], "msg_1", NOW, BODY), BODY, NOW)
    for refused in (private.value, public.value):
        assert not rest or rest not in str(refused)
        assert refused.__context__ is None


def test_each_kind_of_key_does_its_own_work_only() -> None:
    with pytest.raises(ValueError, match="must be 'whsec_'"):
        sign(PUBLIC, "msg_1", NOW, BODY)
    with pytest.raises(ValueError, match="must be 'whsec_'"):
        verify(PRIVATE, headers([PRIVATE], "msg_1", NOW, BODY), BODY, NOW)
    with pytest.raises(ValueError, match="must be 'whsk_'"):
        public_key(SECRET)


def test_an_id_with_a_dot_is_neither_signed_nor_believed() -> None:
    for key in (SECRET, PRIVATE):
        with pytest.raises(ValueError, match="must hold no dot"):
            headers([key], "m1.1", 2, BODY)
    assert (
        verify(SECRET, headers([SECRET], "m1", NOW, BODY) | {"webhook-id": "m1.1"}, BODY, NOW)
        == "the webhook-id holds a dot"
    )


def test_each_live_key_signs_in_its_order() -> None:
    sent = headers([SECRET, PRIVATE, OTHER], "msg_1", NOW, BODY)
    assert sent["webhook-signature"] == " ".join(
        sign(key, "msg_1", NOW, BODY) for key in (SECRET, PRIVATE, OTHER)
    )
    for key in (
        SECRET,
        PUBLIC,
        OTHER,
        [new_secret(), SECRET],
        (public_key(new_signing_key()), PUBLIC),
    ):
        assert verify(key, sent, BODY, NOW) is None
    for key in (new_secret(), public_key(new_signing_key()), [new_secret(), new_secret()], []):
        assert verify(key, sent, BODY, NOW) == "no signature fits"


def test_a_key_that_is_none_is_found_even_behind_one_that_fits() -> None:
    with pytest.raises(ValueError, match="must be 'whpk_'"):
        verify([SECRET, "whpk_"], headers([SECRET], "msg_1", NOW, BODY), BODY, NOW)


def test_nothing_is_announced_without_a_key() -> None:
    with pytest.raises(ValueError, match="no key to sign with"):
        headers([], "msg_1", NOW, BODY)


def test_the_reference_library_verifies_its_own_among_the_signatures_of_several_keys() -> None:
    old, new, private = new_secret(), new_secret(), new_signing_key()
    for keys in ([old, new], [private, new], [new, private, old]):
        sent = headers(keys, "msg_1", int(time.time()), BODY)
        for secret in (key for key in keys if key != private):
            assert Webhook(secret).verify(BODY, sent) == json.loads(BODY)
        with pytest.raises(WebhookVerificationError):
            Webhook(new_secret()).verify(BODY, sent)


@given(
    body=st.binary(),
    webhook_id=st.text(st.characters(codec="utf-8", exclude_characters=".")),
    timestamp=st.integers(0, 10**11),
)
def test_what_a_private_key_signs_its_public_key_believes_and_nothing_else(
    body: bytes, webhook_id: str, timestamp: int
) -> None:
    sent = headers([PRIVATE], webhook_id, timestamp, body)
    assert verify(PUBLIC, sent, body, timestamp) is None
    assert verify(PUBLIC, sent, body + b" ", timestamp) == "no signature fits"
    assert (
        verify(PUBLIC, sent | {"webhook-id": webhook_id + "x"}, body, timestamp)
        == "no signature fits"
    )
    assert (
        verify(PUBLIC, sent | {"webhook-timestamp": str(timestamp + 1)}, body, timestamp)
        == "no signature fits"
    )


@given(
    signature=st.text() | st.text("v1a,=+/ AQ").map("v1a,".__add__),
    key=st.sampled_from([SECRET, PUBLIC]),
)
def test_whatever_stands_in_the_signature_header_is_answered(signature: str, key: str) -> None:
    sent = headers([SECRET], "msg_1", NOW, BODY) | {"webhook-signature": signature}
    assert verify(key, sent, BODY, NOW) == "no signature fits"


@given(
    body=st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.integers() | st.text(st.characters(codec="utf-8"))
    )
)
def test_the_reference_library_verifies_whatever_is_signed(body: dict[str, object]) -> None:
    secret, raw = new_secret(), json.dumps(body, ensure_ascii=False).encode()
    sent = headers([secret], "msg_1", int(time.time()), raw)
    assert Webhook(secret).verify(raw.decode(), sent) == body
    assert verify(secret, sent, raw, time.time()) is None
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(raw.decode(), sent)


@given(
    webhook_id=st.text("abcdefghijklmnopqrstuvwxyz0123456789_"),
    timestamp=st.integers(0, 4_000_000_000),
    body=st.text(st.characters(codec="utf-8")),
)
def test_the_reference_library_signs_the_same(webhook_id: str, timestamp: int, body: str) -> None:
    theirs = Webhook(SECRET).sign(webhook_id, datetime.fromtimestamp(timestamp, UTC), body)
    assert sign(SECRET, webhook_id, timestamp, body.encode()) == theirs


def test_what_the_reference_library_signs_is_believed() -> None:
    signature = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    received = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(NOW),
        "webhook-signature": signature,
    }
    assert verify(SECRET, received, BODY, NOW) is None


def test_a_new_secret_is_32_bytes_and_never_the_same() -> None:
    assert len({new_secret() for _ in range(50)}) == 50
    assert len(webhook_secret_key(new_secret())) == 32


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-timestamp", str(NOW + 1)),
        ("webhook-signature", "v1," + "A" * 43 + "="),
        ("webhook-signature", ""),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("webhook-signature", "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ("webhook-signature", "v1,not base64 ñ"),
    ],
)
def test_a_header_that_was_tampered_with_fits_no_signature(header: str, value: str) -> None:
    sent = headers([SECRET], "msg_1", NOW, BODY)
    assert verify(SECRET, sent | {header: value}, BODY, NOW) == "no signature fits"


@pytest.mark.parametrize(
    "body", [b"", BODY + b" ", BODY[:-1], BODY.replace(b" ", b""), b"\xff\xfe"]
)
def test_a_body_that_was_tampered_with_fits_no_signature(body: bytes) -> None:
    assert verify(SECRET, headers([SECRET], "msg_1", NOW, BODY), body, NOW) == "no signature fits"


def test_another_secret_fits_no_signature() -> None:
    assert verify(OTHER, headers([SECRET], "msg_1", NOW, BODY), BODY, NOW) == "no signature fits"


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(missing: str) -> None:
    sent = headers([SECRET], "msg_1", NOW, BODY)
    del sent[missing]
    assert verify(SECRET, sent, BODY, NOW) == f"the header {missing} is missing"


@pytest.mark.parametrize(
    "timestamp",
    [
        f"{NOW}.0",
        f" {NOW}",
        f"0{NOW}",
        f"-{NOW}",
        "1_614_265_330",
        "١٦١٤٢٦٥٣٣٠",
        "1.614e9",
        "",
        "now",
        "0x10",
        "NaN",
        "9" * 5000,
    ],
)
def test_a_timestamp_that_is_no_integer_is_refused(timestamp: str) -> None:
    sent = headers([SECRET], "msg_1", NOW, BODY) | {"webhook-timestamp": timestamp}
    assert verify(SECRET, sent, BODY, NOW) == "the webhook-timestamp is no integer"


@pytest.mark.parametrize(
    ("off", "trusted"),
    [(0, True), (TOLERANCE, True), (-TOLERANCE, True), (301, False), (-301, False), (1e9, False)],
)
def test_an_payload_is_fresh_for_five_minutes_either_way(off: float, trusted: bool) -> None:
    complaint = verify(SECRET, headers([SECRET], "msg_1", NOW, BODY), BODY, NOW + off)
    assert complaint == (None if trusted else "the webhook-timestamp is more than five minutes off")


def test_one_fitting_signature_among_several_is_enough() -> None:
    old, new = sign(OTHER, "msg_1", NOW, BODY), sign(SECRET, "msg_1", NOW, BODY)
    for several in (f"{old} {new}", f"{new} {old}", f"v1a,AAAA v2,x  {new}", f"v1,  {new}"):
        sent = headers([SECRET], "msg_1", NOW, BODY) | {"webhook-signature": several}
        assert verify(SECRET, sent, BODY, NOW) is None
        assert verify(new_secret(), sent, BODY, NOW) == "no signature fits"

"""What a producer's ids count for, until when, and the sentence that refuses more."""

from __future__ import annotations

import pytest

from cavendish.policy.producer_quota import (
    DELIVERY_BYTES,
    ID_BYTES,
    HourlyUsage,
    ProducerQuota,
    Usage,
    complaint,
    hour_after,
    of_ends,
    of_submit,
)


def test_ids_count_until_their_deadline_and_metadata_and_urls_until_the_records_are_gone() -> None:
    assert of_submit(3, 2, 100, 3600.0, 7201.0) == [
        HourlyUsage(2, 3, 3 * (ID_BYTES + 2 * DELIVERY_BYTES)),
        HourlyUsage(3, 0, 100),
    ]
    assert of_submit(1, 0, 0, 10.0, 20.0) == [HourlyUsage(1, 1, ID_BYTES)]


def test_an_hour_begins_after_every_time_that_it_stands_for() -> None:
    assert [hour_after(time) for time in (0.0, 3599.9, 3600.0)] == [1, 1, 2]


def test_what_ends_counts_until_its_record_is_gone_with_the_bytes_of_its_record() -> None:
    assert of_ends([(3599.0, 0, 50), (3599.0, 1, 0)], 7300.0) == [
        HourlyUsage(1, -2, -2 * ID_BYTES - DELIVERY_BYTES),
        HourlyUsage(3, 2, 2 * ID_BYTES + DELIVERY_BYTES + 50),
    ]
    assert of_ends([(3599.0, 0, 0)], 3000.0) == []


@pytest.mark.parametrize(
    ("quota", "used", "refused"),
    [
        (ProducerQuota(0, 0), Usage(10**9, 10**12), None),
        (ProducerQuota(10, 0), Usage(9, 10**12), None),
        (ProducerQuota(10, 0), Usage(10, 0), "has 10 of 10 ids in the store"),
        (ProducerQuota(0, ID_BYTES), Usage(5, 1), f"has 1 of {ID_BYTES} bytes in the store"),
        (ProducerQuota(0, ID_BYTES), Usage(5, 0), None),
    ],
)
def test_only_what_exceeds_a_limit_is_refused(
    quota: ProducerQuota, used: Usage, refused: str | None
) -> None:
    found = complaint("shop", quota, used, of_submit(1, 0, 0, 10.0, 20.0))
    assert (refused or "") in (found or "")
    assert (found is None) == (refused is None)


def test_the_refusal_names_the_producer_the_limit_what_is_used_and_the_setting() -> None:
    usages = of_submit(5000, 0, 0, 10.0, 20.0)
    assert complaint("shop", ProducerQuota(10_000, 0), Usage(7000, 0), usages) == (
        "The producer 'shop' has 7,000 of 10,000 ids in the store (CAVENDISH_PRODUCER_IDS), "
        "too many for 5,000 more: this submit was refused as a whole."
    )
    nameless = complaint("", ProducerQuota(0, 1), Usage(0, 0), usages)
    assert nameless is not None
    assert nameless.startswith("The producer without a name has 0 of 1 bytes")
    assert "(CAVENDISH_PRODUCER_BYTES)" in nameless


def test_the_share_of_a_quota_is_that_of_the_limit_that_comes_first() -> None:
    used = Usage(5, 90)
    assert used.share(ProducerQuota(10, 100)) == 0.9
    assert used.share(ProducerQuota(10, 0)) == 0.5
    assert used.share(ProducerQuota(0, 0)) == 0.0

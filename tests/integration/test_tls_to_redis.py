"""`rediss://`: store and broker verify alike, by Celery's options; a real Redis behind TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acceptance.conftest import SERVICE, wait_until
from acceptance.parts import Parts
from cavendish import Client
from cavendish.environment.local_paths import broker_tls, broker_url
from cavendish.errors import SettingsError, StoreUnavailable
from cavendish.model import Lane
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish_worker.celeryapp.app import build
from cavendish_worker.devstack.emulator.tasks_api import EmulatorConfig
from conftest import Server
from delivering import Served
from ending import settle
from shell import shell
from tls import Authority, Door

PASSWORD = "hunter2hunter2"
Opened = Callable[..., Door]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def opened(own_server: Server, authority: Authority) -> Iterator[Opened]:
    """Opens doors to a Redis, by default with a certificate for the address where they listen."""
    doors: list[Door] = []

    def begin(name: str = "127.0.0.1", clients: Path | None = None) -> Door:
        doors.append(Door(own_server.socket, authority.issue(name), clients))
        return doors[-1]

    yield begin
    for door in doors:
        door.close()


def of_store(url: str) -> str:
    """How the Redis at a URL answers the store: `answers`, or the complaint."""
    store = Store(url)
    try:
        store.fleet.now()
    except StoreUnavailable as error:
        return str(error)
    finally:
        store.close()
    return "answers"


def of_broker(url: str) -> str:
    """The same for Celery."""
    app = build(Settings.load({"CAVENDISH_REDIS_URL": url}))
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            connection.default_channel.client.ping()
    except Exception as error:
        return str(error)
    finally:
        app.close()
    return "answers"


ROADS = pytest.mark.parametrize("asked", [of_store, of_broker])


@ROADS
def test_an_unknown_certificate_is_refused_and_nothing_is_said_to_it(
    opened: Opened, asked: Callable[[str], str]
) -> None:
    door = opened()
    assert "CERTIFICATE_VERIFY_FAILED" in asked(f"rediss://:{PASSWORD}@127.0.0.1:{door.port}/0")
    assert bytes(door.heard) == b""


@ROADS
@pytest.mark.parametrize(
    "said", ["", "&ssl_cert_reqs=CERT_REQUIRED", "&ssl_cert_reqs=required&ssl_check_hostname=true"]
)
def test_a_certificate_of_a_ca_that_the_url_names_is_taken(
    opened: Opened, authority: Authority, asked: Callable[[str], str], said: str
) -> None:
    door = opened()
    assert (
        asked(f"rediss://127.0.0.1:{door.port}/0?ssl_ca_certs={authority.file}{said}") == "answers"
    )
    assert door.heard


def test_a_wait_over_tls_hears_each_end(
    opened: Opened, own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cavendish.waiting.waits._CHECK_ALL", 3600.0)
    ids, store = [f"id-{number}" for number in range(200)], Store(own_server.url)
    url = f"rediss://127.0.0.1:{opened().port}/0?ssl_cert_reqs=none"
    with Client(url) as client:
        client.submit(ids, service=SERVICE)

        def progress(ended: int, of: int) -> None:
            if ended < of:
                settle(store, Lane("default", SERVICE), *ids[ended : ended + 40])

        assert set(client.wait(ids, service=SERVICE, timeout=60, progress=progress)) == set(ids)
    store.close()


@ROADS
@pytest.mark.parametrize("said", ["CERT_NONE", "none"])
def test_who_wants_no_verification_has_to_say_so(
    opened: Opened, asked: Callable[[str], str], said: str
) -> None:
    assert asked(f"rediss://127.0.0.1:{opened().port}/0?ssl_cert_reqs={said}") == "answers"


@ROADS
def test_a_certificate_for_another_host_is_refused_unless_the_url_says_otherwise(
    opened: Opened, authority: Authority, asked: Callable[[str], str]
) -> None:
    url = f"rediss://127.0.0.1:{opened('redis.example').port}/0?ssl_ca_certs={authority.file}"
    assert "CERTIFICATE_VERIFY_FAILED" in asked(url)
    assert asked(f"{url}&ssl_check_hostname=false") == "answers"


@ROADS
def test_a_client_certificate_is_shown_where_one_is_named(
    opened: Opened, authority: Authority, asked: Callable[[str], str]
) -> None:
    url = (
        f"rediss://127.0.0.1:{opened(clients=authority.file).port}/0?ssl_ca_certs={authority.file}"
    )
    pem, key = authority.issue("a-worker")
    assert asked(url) != "answers"
    assert asked(f"{url}&ssl_certfile={pem}&ssl_keyfile={key}") == "answers"


def test_the_complaint_about_a_certificate_says_what_to_do(opened: Opened) -> None:
    assert of_store(f"rediss://127.0.0.1:{opened().port}/0").endswith(
        "Name the CA of its certificate in the URL: ?ssl_ca_certs=FILE."
    )


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (
            "?ssl_cert_req=CERT_NONE",
            "has the unknown option 'ssl_cert_req'; known are ",
        ),
        (
            "?ssl_cert_reqs=maybe",
            "must have CERT_REQUIRED, CERT_OPTIONAL or CERT_NONE as ssl_cert_reqs",
        ),
        ("?ssl_check_hostname=maybe", "must have true or false as ssl_check_hostname"),
        (
            "?ssl_ca_certs=/nowhere.pem",
            "names the ssl_ca_certs '/nowhere.pem', which cannot be read: No such file",
        ),
        ("?ssl_keyfile=/dev/null", "has an ssl_keyfile, but no ssl_certfile"),
    ],
)
@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_an_option_that_cannot_be_used_is_one_sentence(
    name: str, option: str, complaint: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load({f"CAVENDISH_{name}": f"rediss://:{PASSWORD}@r:6380/1{option}"})
    (said,) = refused.value.complaints
    assert f"CAVENDISH_{name} {complaint}" in said
    assert PASSWORD not in said


def test_options_of_tls_need_a_url_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAVENDISH_REDIS_URL", "redis://r/0?ssl_cert_reqs=CERT_NONE")
    done = shell("status")
    assert isinstance(done.exception, SettingsError)
    assert "must begin with rediss:// for the option ssl_cert_reqs" in str(done.exception)


@pytest.mark.parametrize(
    ("url", "celerys"),
    [
        ("rediss://r:6380/2?socket_timeout=1", "rediss://r:6380/2"),
        ("rediss://:a%23b@r:6380?db=3&ssl_cert_reqs=none", "rediss://:a%23b@r:6380/3"),
        ("redis://r?virtual_host=4", "redis://r/4"),
        ("unix:///run/a%23b.sock?db=1", "redis+socket:///run/a%23b.sock?virtual_host=1"),
        ("redis+socket:///run/x.sock?virtual_host=1", "redis+socket:///run/x.sock?virtual_host=1"),
    ],
)
def test_celery_gets_a_url_without_what_it_would_trip_over(url: str, celerys: str) -> None:
    settings = Settings.load({"CAVENDISH_REDIS_URL": url})
    assert broker_url(settings) == celerys
    verify = broker_tls(settings).get("ssl_cert_reqs")
    assert verify is (
        None
        if not url.startswith("rediss")
        else ssl.CERT_NONE
        if "none" in url
        else ssl.CERT_REQUIRED
    )


@pytest.mark.timeout(90)
def test_a_worker_a_beat_and_a_client_work_over_tls(
    opened: Opened, authority: Authority, served: Served
) -> None:
    options = f"ssl_ca_certs={authority.file}&ssl_cert_reqs=CERT_REQUIRED"
    url = f"rediss://127.0.0.1:{opened().port}/0?{options}"
    parts = Parts(url, served, EmulatorConfig(rate=0.0, median=0.1))
    try:
        parts.celery("worker")
        parts.celery("beat")
        ids = parts.emulator.create(3)
        parts.client.submit(ids, service=SERVICE, webhook=parts.receiver)
        wait_until(lambda: set(parts.announced()["states"]) == set(ids), 40, "all is announced")
        assert "Traceback" not in parts.lines()
        assert "insecure" not in parts.lines()
    finally:
        parts.close()

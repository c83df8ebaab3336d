"""Every setting, and that all complaints about them come together and without secrets."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from cavendish.environment.env_parsers import webhook_secret_key
from cavendish.environment.local_paths import broker_url, celery_spelling, store_url, with_kept
from cavendish.environment.redis_url import many, without_password, without_wait
from cavendish.errors import SettingsError
from cavendish.settings import PREFIX, Settings, env_name

CONFIG = fields(Settings)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

#: Texts that each setting refuses. The settings that are left out take any text.
ENCRYPTING = urlsafe_b64encode(bytes(range(32))).decode()
BAD = {
    "REDIS_URL": [
        *["localhost:6379", "http://localhost", "amqp://localhost", "redis:", "6379"],
        *[
            "redis+sentinel://a,b",
            "redis+sentinel:///book",
            "redis+sentinel://a:x/book",
            "redis+sentinel://a,/book",
            "sentinel://a",
        ],
        *[
            "redis+sentinel://a/book/first",
            "redis+sentinel://a/book?db=1",
            "redis+cluster://a:0",
            "redis+cluster://a/0",
        ],
        *["redis+cluster://a,", "redis+cluster://"],
    ],
    "BROKER_URL": [
        "localhost",
        "http://localhost",
        "kafka://localhost",
        "redis+cluster://a",
        "redis+sentinel://a",
        "sentinel://a",
    ],
    "WAIT_REPLICAS": ["-1", "11", "1.5", "x"],
    "WAIT_TIMEOUT": ["0", "4.1", "x"],
    "API_URL": ["api.example", "ftp://api.example", "//api.example", "redis://api.example"],
    "API_TOKEN": ["two words", "tøken", "a\tb", "a\nb", "a\x00b"],
    "SERVICES": ["Flux", "flux veo", "flux,", "no_underscore", "x" * 41],
    "RATE": ["0", "-1", "fast", "nan", "inf", "100001"],
    "BATCH_SIZE": ["0", "1001", "1.5", "-1", "many", "nan"],
    "TICK": ["0", "0.04", "61", "nan", "x"],
    "DEADLINE": ["0", "2592001", "inf", "1h"],
    "LAST_POLL": ["0", "86401", "x"],
    "LEASE": ["9", "3601", "x"],
    "CONNECT_TIMEOUT": ["0", "61", "x"],
    "CALL_TIMEOUT": ["0", "301", "x"],
    "ANSWER_LIMIT": ["1023", "1073741825", "1e6", "16 MB"],
    "ABSENT_GRACE": ["-1", "86401", "x"],
    "ABSENT_POLLS": ["0", "1001", "x"],
    "ABSENT_OVER": ["-1", "86401", "x"],
    "RETENTION": ["59", "x", "inf"],
    "DEAD_RETENTION": ["59", "x", "inf"],
    "EVENTS_KEPT": ["99", "10000001", "x"],
    "PRODUCER_IDS": ["-1", "1000000000001", "x"],
    "PRODUCER_BYTES": ["-1", "1000000000000001", "1 GB"],
    "WEBHOOK_SECRET": [
        "whsec_",
        "plain",
        SECRET.removeprefix("whsec_"),
        "whsec_AAAA",
        "whsec_" + "A" * 88,
        "whsec_*" + "A" * 31,
        SECRET[:-1],
    ],
    "WEBHOOK_ALLOW": ["inside", "10.0.0.0/33", "10.0.0.0/8;fd00::/8", "*"],
    "WEBHOOK_TIMEOUT": ["0", "61", "x"],
    "WEBHOOK_PORTS": ["0", "65536", "443-80", "http", "80,,443", "80,1-2-3", "-1"],
    "WEBHOOK_CALLS": ["0", "10001", "x"],
    "WEBHOOK_CALLS_PER_ENDPOINT": ["0", "10001", "x"],
    "WEBHOOK_DISABLE_AFTER": ["59", "x", "inf"],
    "WEBHOOK_ORIGIN": ["two words", "tøken"],
    "API_PROXY": ["proxy.example:3128", "socks5://proxy.example", "off"],
    "EGRESS_PROXY": ["proxy.example:3128", "socks5://proxy.example", "redis://x"],
    "OPERATIONS_WEBHOOK": ["ftp://example.com/", "https://"],
    "SECRET_KEY": ["short", ENCRYPTING[:-4], f"{ENCRYPTING},", "ü" * 44],
    "RESULT_TTL": ["59", "veo", "veo=soon", "veo=3600,", "inf"],
    "SHARDS": ["0", "257", "1.0"],
    "CONCURRENCY": ["4", "257", "x"],
    "SHUTDOWN_TIMEOUT": ["0", "601", "x"],
    "FLOWER_PORT": ["-1", "65536", "http"],
    "METRICS_PORT": ["-1", "65536", "http", ":9090", "host:", "::1:9090", "http://host:9090"],
    "HTTP_PORT": ["-1", "65536", "http"],
    "HTTP_RATE": ["0", "1000001", "x", "nan"],
    "HTTP_ADDRESS": ["localhost", "10.0.0", "10.0.0.1:80", "[::1]"],
    "FLOWER_ADDRESS": ["localhost", "10.0.0", "10.0.0.1:80", "[::1]"],
    "FLOWER_BASIC_AUTH": ["ada", "ada:", ":secret", "ada:gehëim", "ada:se\ncret"],
    "LOG_FORMAT": ["xml", "json,console"],
    "GATEWAY": ["yes", "1", "on off"],
    "LOG_LEVEL": ["loud", "critical"],
}
GOOD: dict[str, tuple[str, Any]] = {
    "REDIS_URL": ("rediss://redis.example:6380/2", "rediss://redis.example:6380/2"),
    "BROKER_URL": ("amqps://broker.example/vhost", "amqps://broker.example/vhost"),
    "WAIT_REPLICAS": ("2", 2),
    "DATA_DIR": ("/var/lib/cavendish", Path("/var/lib/cavendish")),
    "API_URL": ("https://api.example/v1/", "https://api.example/v1"),
    "API_TOKEN": (" token ", "token"),
    "SERVICES": ("flux-next, *", ("flux-next", "*")),
    "RATE": ("2.5", 2.5),
    "BATCH_SIZE": ("20", 20),
    "TICK": ("1", 1.0),
    "LOG_FORMAT": ("JSON", "json"),
    "GATEWAY": ("OFF", "off"),
    "LOG_LEVEL": ("Debug", "debug"),
    "FLOWER_PORT": ("0", 0),
    "METRICS_PORT": ("9090", ("127.0.0.1", 9090)),
    "FLOWER_ADDRESS": ("::1", "::1"),
    "HTTP_PORT": ("8080", 8080),
    "HTTP_ADDRESS": ("0.0.0.0", "0.0.0.0"),
    "FLOWER_BASIC_AUTH": ("ada:a:b,c", "ada:a:b,c"),
    "WEBHOOK_SECRET": (SECRET, SECRET),
    "ABSENT_GRACE": ("0", 0.0),
    "WEBHOOK_PORTS": ("443, 8000-8001", (range(443, 444), range(8000, 8002))),
    "API_PROXY": ("None", "none"),
    "EGRESS_PROXY": ("http://proxy.example:3128/", "http://proxy.example:3128"),
    "OPERATIONS_WEBHOOK": ("ops", "ops"),
    "SECRET_KEY": (f"{ENCRYPTING}, {ENCRYPTING}", (ENCRYPTING, ENCRYPTING)),
    "RESULT_TTL": ("86400, veo=3600", (("*", 86400.0), ("veo", 3600.0))),
}


EDGES = {
    "WAIT_REPLICAS": "0 10",
    "WAIT_TIMEOUT": "0.01 4",
    "RATE": "0.01 100000",
    "BATCH_SIZE": "1 1000",
    "TICK": "0.05 60",
    "DEADLINE": "1 2592000",
    "LAST_POLL": "1 86400",
    "LEASE": "10 3600",
    "CONNECT_TIMEOUT": "0.1 60",
    "CALL_TIMEOUT": "0.5 300",
    "ANSWER_LIMIT": "1024 1073741824",
    "ABSENT_GRACE": "0 86400",
    "ABSENT_POLLS": "1 1000",
    "ABSENT_OVER": "0 86400",
    "RETENTION": "60 315360000",
    "DEAD_RETENTION": "60 315360000",
    "EVENTS_KEPT": "100 10000000",
    "PRODUCER_IDS": "0 1000000000000",
    "PRODUCER_BYTES": "0 1000000000000000",
    "WEBHOOK_TIMEOUT": "0.5 60",
    "WEBHOOK_CALLS": "1 10000",
    "WEBHOOK_CALLS_PER_ENDPOINT": "1 10000",
    "WEBHOOK_DISABLE_AFTER": "60 315360000",
    "SHARDS": "1 256",
    "CONCURRENCY": "5 256",
    "SHUTDOWN_TIMEOUT": "1 600",
    "FLOWER_PORT": "0 65535",
    "HTTP_PORT": "0 65535",
    "HTTP_RATE": "1 1000000",
}


def load(**environ: str) -> Settings:
    return Settings.load({PREFIX + name: text for name, text in environ.items()})


def complaints(**environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        load(**environ)
    assert str(refused.value) == "\n".join(refused.value.complaints)
    return refused.value.complaints


# --- defaults and readers


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.load({}) == Settings()
    assert Settings.load({env_name(setting.name): "  " for setting in CONFIG}) == Settings()


@pytest.mark.parametrize("setting", CONFIG, ids=lambda setting: setting.name)
def test_every_setting_has_a_default_a_unit_and_a_meaning(setting: Any) -> None:
    assert setting.default is not MISSING
    assert setting.metadata["unit"]
    assert setting.metadata["meaning"]


@pytest.mark.parametrize("setting", CONFIG, ids=lambda setting: setting.name)
def test_every_default_would_be_taken_from_the_environment_too(setting: Any) -> None:
    unset = setting.default in ("", None, ()) or setting.name == "rate"
    if not unset:
        assert (
            Settings.load(
                {env_name(setting.name): setting.metadata["shown"] or str(setting.default)}
            )
            == Settings()
        )


@pytest.mark.parametrize(
    ("name", "text", "value"), [(name, *pair) for name, pair in GOOD.items()], ids=GOOD.keys()
)
def test_a_sound_text_is_read(name: str, text: str, value: Any) -> None:
    assert getattr(load(**{name: text}), name.lower()) == value


@pytest.mark.parametrize(("name", "texts"), EDGES.items(), ids=EDGES.keys())
def test_a_range_includes_its_edges(name: str, texts: str) -> None:
    for text in texts.split():
        settings = load(
            **{"CALL_TIMEOUT": "0.5", name: text}
            | ({"LEASE": "3600", "LAST_POLL": "3600"} if text == "300" else {})
        )
        assert getattr(settings, name.lower()) == float(text)


def test_the_defaults_that_are_published_hold() -> None:
    settings = Settings()
    assert (settings.api_url, str(settings.data_dir)) == ("https://api.acedata.cloud", ".cavendish")
    assert (settings.batch_size, settings.deadline, settings.shards) == (100, 3600.0, 1)


@pytest.mark.parametrize(
    "url",
    [
        "redis://r",
        "rediss://r:6380/1",
        "unix:///run/redis.sock?db=1",
        "redis+socket:///run/redis.sock?virtual_host=1",
    ],
)
def test_the_store_takes_every_spelling_of_a_redis_url(url: str) -> None:
    assert load(REDIS_URL=url).redis_url == load(BROKER_URL=url).broker_url == url


@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("run/redis.sock", "must have three slashes before the path of the socket: {}:///path"),
        ("/a#b/redis.sock", "must be a URL in which # is spelt %23"),
        (
            "/" + "%C3%BC" * 54,
            "names a unix socket by 109 bytes, but its path may have 107 at most",
        ),
        ("/a?b/redis.sock", "has the unknown option 'b/redis.sock'"),
    ],
)
def test_a_url_where_no_unix_socket_can_be_is_one_sentence(
    scheme: str, where: str, says: str
) -> None:
    """For the store and the broker; a path that is spelt as URLs spell it is taken."""
    for name in ("REDIS_URL", "BROKER_URL"):
        with pytest.raises(SettingsError) as refused:
            load(**{name: f"{scheme}://{where}"})
        assert str(refused.value).startswith(f"CAVENDISH_{name} {says.format(scheme)}")
    for path in ("/a%23b%3F%20%0A/redis.sock", "/" + "%C3%BC" * 53, "/a b/ü"):
        assert load(REDIS_URL=f"{scheme}://{path}").redis_url == f"{scheme}://{path}"


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:p%40ss@a:26379,b,c:26380/book/2",
        "sentinel://:p%40ss@a:26379/2;sentinel://b;sentinel://c:26380?master_name=book",
    ],
)
def test_sentinels_are_spelt_in_our_way_or_in_celerys(url: str) -> None:
    assert load(REDIS_URL=url).redis_url == load(BROKER_URL=url).broker_url == url
    read = many(url)
    assert (read.hosts, read.name, read.db) == (
        (("a", 26379), ("b", 26379), ("c", 26380)),
        "book",
        2,
    )
    assert (read.username, read.password) == (None, "p@ss")
    assert many(broker_url(load(REDIS_URL=url))) == read
    assert without_password(url).count("p%40ss") == 0
    assert "p@ss" not in repr(read)


def test_the_password_of_the_sentinels_is_one_of_its_own_and_not_shown() -> None:
    url = "redis+sentinel://user:one@a/book/0?sentinel_password=two"
    read = many(broker_url(load(REDIS_URL=url, WAIT_REPLICAS="1")))
    assert (read.username, read.password, read.sentinel_password) == ("user", "one", "two")
    assert without_password(url) == "redis+sentinel://a/book/0"


def test_a_cluster_is_no_broker_and_only_who_needs_a_broker_is_told() -> None:
    settings = load(REDIS_URL="redis+cluster://:hunter2@a:7000,b")
    assert many(settings.redis_url).hosts == (("a", 7000), ("b", 6379))
    with pytest.raises(SettingsError, match="CAVENDISH_BROKER_URL must name a broker") as refused:
        broker_url(settings)
    assert "hunter2" not in str(refused.value)
    assert (
        broker_url(load(REDIS_URL="redis+cluster://a", BROKER_URL="redis://b/1")) == "redis://b/1"
    )


@pytest.mark.parametrize(
    "url", ["redis://:pw@r/1", "unix:///run/a@b.sock?db=1", "redis+cluster://:pw@a,b"]
)
def test_what_a_write_waits_for_goes_with_the_url_of_the_store_and_not_of_the_broker(
    url: str,
) -> None:
    settings = load(REDIS_URL=url, WAIT_REPLICAS="2", WAIT_TIMEOUT="0.5", BROKER_URL="redis://b/1")
    assert without_wait(store_url(settings)) == (url, 2, 0.5)
    assert store_url(
        load(REDIS_URL=store_url(settings), WAIT_REPLICAS="2", WAIT_TIMEOUT="0.5")
    ) == store_url(settings)
    assert store_url(load(REDIS_URL=url)) == url
    assert "wait" not in celery_spelling(store_url(settings))
    assert without_password(url) == url.replace(":pw@", "")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9090", ("::1", 9090)),
        ("host.example:65535", ("host.example", 65535)),
    ],
)
def test_metrics_may_be_served_at_any_host(text: str, where: tuple[str, int]) -> None:
    assert load(METRICS_PORT=text).metrics_port == where


def test_networks_are_read_as_networks() -> None:
    assert [str(net) for net in load(WEBHOOK_ALLOW="127.0.0.0/8, ::1").webhook_allow] == [
        "127.0.0.0/8",
        "::1/128",
    ]


def test_names_of_others_in_the_environment_are_no_concern() -> None:
    assert Settings.load({"SHARDS": "x", "PATH": "/bin", "cavendish_shards": "x"}) == Settings()


# --- complaints


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts]
)
def test_an_ill_formed_text_is_refused_by_its_environment_name(name: str, text: str) -> None:
    (complaint,) = complaints(**{name: text})
    assert complaint.startswith(f"CAVENDISH_{name} ")
    assert complaint.endswith(".")


def test_all_complaints_come_at_once() -> None:
    everything = {name: texts[0] for name, texts in BAD.items()}
    said = complaints(**everything)
    assert {complaint.split()[0] for complaint in said} == {f"CAVENDISH_{name}" for name in BAD}
    assert len(said) == len(BAD)


@pytest.mark.parametrize(
    ("name", "says"),
    [("TICK", "must be a number, not 'x'."), ("SHARDS", "must be a number, not 'x'.")],
)
def test_python_does_not_speak_in_a_complaint(name: str, says: str) -> None:
    assert complaints(**{name: "x"}) == (f"CAVENDISH_{name} {says}",)


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({"LEASE": "59"}, ["CAVENDISH_LEASE"]),
        ({"CALL_TIMEOUT": "38", "LAST_POLL": "61"}, ["CAVENDISH_LEASE"]),
        ({"LAST_POLL": "29"}, ["CAVENDISH_LAST_POLL"]),
        ({"FLOWER_ADDRESS": "0.0.0.0"}, ["CAVENDISH_FLOWER_ADDRESS"]),
        ({"FLOWER_ADDRESS": "::"}, ["CAVENDISH_FLOWER_ADDRESS"]),
        ({"CALL_TIMEOUT": "300"}, ["CAVENDISH_LEASE", "CAVENDISH_LAST_POLL"]),
        (
            {"LEASE": "59", "LAST_POLL": "29", "SHARDS": "x"},
            ["CAVENDISH_SHARDS", "CAVENDISH_LEASE", "CAVENDISH_LAST_POLL"],
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    environ: dict[str, str], names: list[str]
) -> None:
    assert [complaint.split()[0] for complaint in complaints(**environ)] == names


@pytest.mark.parametrize(
    "environ",
    [
        {"LEASE": "60"},
        {"CALL_TIMEOUT": "37.5"},
        {"LAST_POLL": "30"},
        {"FLOWER_ADDRESS": "::", "FLOWER_BASIC_AUTH": "a:b"},
    ],
)
def test_settings_that_just_fit_each_other_are_taken(environ: dict[str, str]) -> None:
    assert load(**environ)


# --- secrets


def test_secrets_are_never_in_the_repr(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text('{"second": "hunter2-in-a-file"}')
    settings = load(API_TOKEN="hunter2", WEBHOOK_SECRET=SECRET, API_TOKENS_FILE=str(path))
    assert "hunter2" not in f"{settings} {settings!r}"
    assert SECRET.removeprefix("whsec_") not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_TOKEN", "hunter2 spaced"),
        ("API_TOKEN", "hunter2ñ"),
        ("WEBHOOK_SECRET", "hunter2"),
        ("WEBHOOK_SECRET", "whsec_hunter2ñ"),
    ],
)
def test_secrets_are_never_in_a_complaint(name: str, text: str) -> None:
    (complaint,) = complaints(**{name: text})
    assert "hunter2" not in complaint


@pytest.mark.parametrize("size", [0, 18, 23, 65, 1000])
def test_a_signing_secret_of_another_size_is_refused(size: int) -> None:
    assert len(complaints(WEBHOOK_SECRET="whsec_" + b64encode(b"k" * size).decode())) == 1


@pytest.mark.parametrize("odd", "-_*:")
def test_a_signing_secret_in_another_alphabet_is_refused_and_not_read_as_another_key(
    odd: str,
) -> None:
    for text in (odd * 4 + "A" * 32, odd + "A" * 31, "A" * 16 + odd + "A" * 16):
        assert len(complaints(WEBHOOK_SECRET="whsec_" + text)) == 1


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_signing_secret_holds_24_to_64_bytes(size: int) -> None:
    assert webhook_secret_key("whsec_" + b64encode(b"k" * size).decode()) == b"k" * size


# --- the file of tokens


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        ({}, {}),
        ({"second": "t2"}, {"second": "t2"}),
        ({"default": "t1", "second": "t2"}, {"default": "t1", "second": "t2"}),
    ],
)
def test_the_file_of_tokens_adds_accounts(
    tmp_path: Path, content: object, tokens: dict[str, str]
) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(content))
    assert load(API_TOKENS_FILE=str(path)).tokens() == tokens
    assert load(API_TOKENS_FILE=str(path), API_TOKEN="mine").tokens() == tokens | {
        "default": "mine"
    }


def test_without_a_file_there_is_the_default_account_or_none() -> None:
    assert load().tokens() == {}
    assert load(API_TOKEN="mine").tokens() == {"default": "mine"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'["t"]',
        b'"t"',
        b"null",
        b"5",
        b'{"second": ""}',
        b'{"second": null}',
        b'{"second": 5}',
        b'{"second": {"token": "t"}}',
        b"\xff\xfe",
    ],
)
def test_a_file_of_tokens_of_another_shape_is_refused_without_showing_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    (complaint,) = complaints(API_TOKENS_FILE=str(path))
    assert complaint.startswith(f"CAVENDISH_API_TOKENS_FILE cannot be used: {path} ")


def test_a_broken_file_of_tokens_does_not_show_its_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    for content in ('{"second": "hunter2"', '["hunter2"]', '{"a": "hunter2", "b": 5}'):
        path.write_text(content)
        assert "hunter2" not in "".join(complaints(API_TOKENS_FILE=str(path)))


def test_a_file_of_tokens_that_is_not_there_is_named(tmp_path: Path) -> None:
    (missing,), (folder,) = (
        complaints(API_TOKENS_FILE=str(tmp_path / "no")),
        complaints(API_TOKENS_FILE=str(tmp_path)),
    )
    assert (
        missing
        == f"CAVENDISH_API_TOKENS_FILE cannot be used: {tmp_path}/no: No such file or directory."
    )
    assert folder == f"CAVENDISH_API_TOKENS_FILE cannot be used: {tmp_path}: Is a directory."


def test_what_up_keeps_in_its_folder_is_found_beside_it_and_the_environment_wins(
    tmp_path: Path,
) -> None:
    kept, own, ours = (urlsafe_b64encode(bytes([byte]) * 32).decode() for byte in b"kou")
    (tmp_path / "webhook-secret").write_text(SECRET + "\n")
    (tmp_path / "secret-key").write_text(kept)
    beside = {"CAVENDISH_DATA_DIR": str(tmp_path)}
    assert with_kept(Settings.load(beside)) == replace(
        Settings.load(beside), webhook_secret=SECRET, secret_key=(kept,)
    )
    both = with_kept(Settings.load(beside | {"CAVENDISH_SECRET_KEY": own}))
    assert both.secret_key == (own, kept)  # encrypts with the first
    other = "whsec_" + ours
    assert (
        with_kept(Settings.load(beside | {"CAVENDISH_WEBHOOK_SECRET": other})).webhook_secret
        == other
    )
    elsewhere = Settings.load(beside | {"CAVENDISH_REDIS_URL": "redis://other"})
    assert with_kept(elsewhere) == elsewhere


def test_a_kept_file_that_holds_something_else_is_named_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret-key").write_text("hunter2")
    with pytest.raises(SettingsError, match=str(tmp_path / "secret-key")) as caught:
        with_kept(Settings.load({"CAVENDISH_DATA_DIR": str(tmp_path)}))
    assert "hunter2" not in str(caught.value)

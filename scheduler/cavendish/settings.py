"""Every setting once, as a table: environment name, default, unit, bounds and meaning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path

from cavendish.environment import env_parsers as read
from cavendish.environment import setting_fields as field
from cavendish.environment.redis_url import CLUSTER, SENTINEL
from cavendish.errors import SettingsError
from cavendish.policy.addresses import Network

PREFIX = "CAVENDISH_"

_DAY = 86400.0
_WEB_PORTS = "80,443,1024-65535"
_REDIS = ("redis", "rediss", "unix", "redis+socket", SENTINEL, "sentinel")
_STORE = (*_REDIS, CLUSTER)
_BROKER = (*_REDIS, "amqp", "amqps")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says; what it does not say has its default."""

    redis_url: str = field.secret(
        "",
        read.redis(*_STORE),
        "URL",
        "Redis that holds the store; unset: the embedded server of `cavendish up`.",
    )
    broker_url: str = field.secret(
        "", read.redis(*_BROKER), "URL", "Celery's broker; unset: the Redis of the store."
    )
    wait_replicas: int = field.count(
        0,
        0,
        10,
        "replicas",
        "Number of replicas that must confirm a submit or an end before it counts as stored.",
    )
    wait_timeout: float = field.seconds(1.0, 0.01, 4, "Maximum time to wait for these replicas.")
    data_dir: Path = field.setting(
        Path(".cavendish"), Path, "folder", "Folder for the files of `cavendish up`."
    )
    api_url: str = field.secret(
        "https://api.acedata.cloud", read.url("http", "https"), "URL", "Address of the remote API."
    )
    api_proxy: str = field.secret(
        "",
        read.proxy,
        "URL or none",
        "Proxy for calls to the API; none: no proxy; unset: the proxy of the environment "
        "(`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).",
    )
    api_token: str = field.secret("", read.token, "token", "Bearer token of the account `default`.")
    api_tokens_file: Path | None = field.setting(
        None,
        Path,
        "file",
        'JSON object {"account": "token"} with the tokens of accounts; read again when it changes.',
    )
    services: tuple[str, ...] = field.setting(
        (),
        read.services,
        "names",
        "Additional services that a submit may name, separated by commas; *: any.",
    )
    rate: float = field.setting(
        0.0,
        read.number(0.01, 100_000),
        "calls/s",
        "Upper bound of an account's rate limit; unset: only the learned limit.",
    )
    batch_size: int = field.count(
        100, 1, 1000, "ids", "Maximum number of ids in one `retrieve_batch` call."
    )
    tick: float = field.seconds(0.25, 0.05, 60, "Interval at which beat starts a dispatch.")
    deadline: float = field.seconds(
        3600.0, 1, 30 * _DAY, "Time after which an id expires, unless its submit says otherwise."
    )
    last_poll: float = field.seconds(
        60.0,
        1,
        _DAY,
        "How long after its deadline an id waits for a last poll if the API cannot be asked; "
        "ten times as long if it can.",
    )
    lease: float = field.seconds(
        75.0, 10, 3600, "Time after which the batch of a worker that died is claimed again."
    )
    connect_timeout: float = field.seconds(5.0, 0.1, 60, "Maximum time to connect to the API.")
    call_timeout: float = field.seconds(30.0, 0.5, 300, "Maximum time of a call to the API.")
    answer_limit: int = field.count(
        16 * 2**20, 1024, 2**30, "bytes", "Largest answer of the remote API that is read."
    )
    absent_grace: float = field.seconds(
        15.0, 0, _DAY, "Time after its submit for which the API may not know an id yet."
    )
    absent_polls: int = field.count(
        3, 1, 1000, "polls", "Polls in a row that must not find an id before it is `unknown` ..."
    )
    absent_over: float = field.seconds(
        60.0, 0, _DAY, "... and the minimum time between the first and the last of them."
    )
    retention: float = field.seconds(
        7 * _DAY,
        60,
        3650 * _DAY,
        "Time for which an ended id and its record are kept after its last delivery.",
    )
    dead_retention: float = field.seconds(
        30 * _DAY, 60, 3650 * _DAY, "Time for which dead letters and their records are kept."
    )
    producer_ids: int = field.count(
        50_000_000,
        0,
        10**12,
        "ids",
        "Maximum number of ids of a producer in the store, pending and ended ones; 0: any number.",
    )
    producer_bytes: int = field.count(
        64 * 2**30, 0, 10**15, "bytes", "Maximum size of these ids in Redis, estimated; 0: any."
    )
    events_kept: int = field.count(
        10_000, 100, 10_000_000, "events", "Length of the stream of events of each lane."
    )
    webhook_secret: str = field.secret(
        "",
        read.secret,
        "whsec_…",
        "Secret that signs webhooks to plain URLs; of several, separated by commas, the newest "
        "first, all sign.",
    )
    webhook_allow: tuple[Network, ...] = field.setting(
        (), read.networks, "CIDRs", "Private addresses that webhooks may reach nevertheless."
    )
    webhook_ports: tuple[range, ...] = field.setting(
        read.ports(_WEB_PORTS),
        read.ports,
        "ports",
        "Ports that webhooks may reach; any port at the addresses of WEBHOOK_ALLOW.",
        shown=_WEB_PORTS,
    )
    webhook_calls: int = field.count(
        400, 1, 10_000, "calls", "Maximum number of webhook calls in flight per worker process."
    )
    webhook_calls_per_endpoint: int = field.count(
        100, 1, 10_000, "calls", "Maximum number of these calls to one endpoint."
    )
    webhook_disable_after: float = field.seconds(
        5 * _DAY,
        60,
        3650 * _DAY,
        "An endpoint that fails for this time without one success is disabled.",
    )
    webhook_origin: str = field.setting(
        "cavendish",
        read.token,
        "name",
        "Name of the sender when an endpoint is asked for its consent (`WebHook-Request-Origin`).",
    )
    egress_proxy: str = field.secret(
        "",
        read.url("http", "https"),
        "URL",
        "Proxy for all webhooks; then the proxy must check the addresses, not the workers.",
    )
    operations_webhook: str = field.secret(
        "",
        read.endpoint,
        "URL or name",
        "Receives alerts such as `endpoint.disabled`: a URL or a registered endpoint.",
    )
    secret_key: tuple[str, ...] = field.secret(
        (),
        read.encryption_keys,
        "base64",
        "Key that encrypts the secrets of registered endpoints; several, separated by commas, the "
        "newest first; unset: `cavendish up` generates one.",
    )
    result_ttl: tuple[tuple[str, float], ...] = field.setting(
        (),
        read.lifetimes,
        "s",
        "Time after which the API's result links expire, or service=seconds pairs; webhooks then "
        "have `results_expire_at`, late ones `results_expired`.",
    )
    webhook_timeout: float = field.seconds(15.0, 0.5, 60, "Maximum time of a webhook call.")
    shards: int = field.count(
        1, 1, 256, "shards", "Number of shards of each lane; choose it before the first submit."
    )
    concurrency: int = field.count(
        16, 5, 256, "threads", "Celery tasks that one worker process runs at the same time."
    )
    shutdown_timeout: float = field.seconds(
        20.0, 1, 600, "Maximum time of a worker's shutdown; then `cavendish up` kills it."
    )
    flower_port: int = field.count(5555, 0, 65535, "port", "Flower's port; 0: any free port.")
    flower_address: str = field.setting(
        "127.0.0.1",
        read.address,
        "address",
        "Address that Flower listens on; any but a loopback address needs a login.",
    )
    flower_basic_auth: str = field.secret(
        "",
        read.login,
        "user:password",
        "Login for Flower, which also enables its buttons; unset: Flower is read-only.",
    )
    http_port: int = field.count(
        5556, 0, 65535, "port", "The HTTP service's port; 0: any free port."
    )
    http_address: str = field.setting(
        "127.0.0.1",
        read.address,
        "address",
        "Address of the HTTP service; any but a loopback address needs TLS or a proxy.",
    )
    gateway: str = field.setting(
        "on",
        read.one_of("on", "off"),
        "on | off",
        "Whether the HTTP service answers the API's own clients (the gateway).",
    )
    public_url: str = field.setting(
        "",
        read.url("http", "https"),
        "URL",
        "Public address of the HTTP service, for the API's callbacks; unset: no callbacks.",
    )
    http_rate: float = field.setting(
        2000.0, read.number(1, 1_000_000), "requests/s", "Maximum rate of requests to /v1 per key."
    )
    metrics_port: tuple[str, int] | None = field.setting(
        None,
        read.listening,
        "[host:]port",
        "Port for the Prometheus metrics of each worker process, and of the HTTP service "
        "(host: 127.0.0.1); unset: off.",
    )
    log_format: str = field.setting(
        "console", read.one_of("console", "json"), "console | json", "Format of the log lines."
    )
    log_level: str = field.setting(
        "info",
        read.one_of("debug", "info", "warning", "error"),
        "level",
        "Lowest level that is logged.",
    )

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read `environ`, by default the environment of this process.

        Raises SettingsError with every complaint at once, by environment name.
        """
        environ = os.environ if environ is None else environ
        values, complaints = {}, []
        for setting in fields(cls):
            name = env_name(setting.name)
            text = environ.get(name, "").strip()
            if not text:
                continue
            try:
                values[setting.name] = setting.metadata["read"](text)
            except ValueError as error:
                complaints.append(
                    field.complaint(name, text, error, secret=setting.metadata["secret"])
                )
        settings = cls(**values)
        complaints += settings._contradictions()
        if complaints:
            raise SettingsError(complaints)
        return settings

    def _contradictions(self) -> list[str]:
        found = []
        if self.lease < 2 * self.call_timeout:
            found.append(
                "LEASE must be at least twice CAVENDISH_CALL_TIMEOUT, or ids are polled twice."
            )
        if self.last_poll < self.call_timeout:
            found.append(
                "LAST_POLL must be at least CAVENDISH_CALL_TIMEOUT, or a last poll is cut short."
            )
        if not (self.flower_basic_auth or ip_address(self.flower_address).is_loopback):
            found.append(
                "FLOWER_ADDRESS lets others see what runs: set CAVENDISH_FLOWER_BASIC_AUTH too."
            )
        try:
            self.tokens()
        except (OSError, ValueError) as error:
            found.append(f"API_TOKENS_FILE cannot be used: {error}.")
        return [PREFIX + complaint for complaint in found]

    def result_lifetime(self, service: str) -> float | None:
        """Seconds after which the API's results of a `service` expire; None if nothing is set."""
        lifetimes = dict(self.result_ttl)
        return lifetimes.get(service, lifetimes.get("*"))

    def tokens(self) -> dict[str, str]:
        """The bearer token of each account.

        Raises OSError or ValueError if the file of tokens cannot be used.
        """
        path, own = self.api_tokens_file, self.api_token
        return (read.tokens_file(path) if path else {}) | ({"default": own} if own else {})


def env_name(setting: str) -> str:
    """The environment name of a field of Settings."""
    return PREFIX + setting.upper()


def described() -> list[tuple[str, str, str, str]]:
    """Name, unit, default and meaning of every setting, as `deploy/env.example` shows them."""
    rows = []
    for setting in fields(Settings):
        about, default = setting.metadata, setting.default
        shown = f"{default:.10g}" if isinstance(default, float) else str(default)
        unset = default in ("", (), None, 0.0)
        name, default_text = env_name(setting.name), about["shown"] or ("" if unset else shown)
        rows.append((name, about["unit"], default_text, about["meaning"]))
    return rows


Settings.__doc__ = """What the environment says; what it does not say has its default.

Each field has the name of its environment variable without CAVENDISH_, in lower case. Secrets stay
out of `repr`. Times are in seconds.

""" + "\n".join(
    f"- `{setting.name}`: {setting.metadata['meaning']}" for setting in fields(Settings)
)

"""Tokens that are read again when their file changes, and what follows for a refused account."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cavendish.model import UpstreamErrorKind
from cavendish.policy.rate_limit import RateLimit, report_error
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish_worker.http.event_loop import LoopThread
from cavendish_worker.polling.api_tokens import ApiTokens, TokenNews
from cavendish_worker.polling.upstream import Upstream, upstream_for
from cavendish_worker.telemetry import logs
from integration.test_retrieve import Bench, error
from shell import Run


def of(path: Path, **more: str) -> ApiTokens:
    return ApiTokens(Settings.load({"CAVENDISH_API_TOKENS_FILE": str(path), **more}))


def replace_by(path: Path, tokens: object) -> None:
    """Put another file in the place of this one, as careful programs do."""
    new = path.with_suffix(".new")
    new.write_text(tokens if isinstance(tokens, str) else json.dumps(tokens))
    new.rename(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"shop": "one"}))
    return path


def test_a_file_that_was_replaced_is_read_and_one_that_was_not_is_left_alone(file: Path) -> None:
    tokens = of(file)
    assert not tokens.refresh()
    replace_by(file, {"shop": "two", "new": "three"})
    assert tokens.refresh()
    assert dict(tokens) == {"shop": "two", "new": "three"}
    assert not tokens.refresh()
    replace_by(file, {"new": "three"})
    assert tokens.refresh()
    assert dict(tokens) == {"new": "three"}


def test_a_secret_of_kubernetes_whose_link_points_elsewhere_is_read(tmp_path: Path) -> None:
    """The file is a link into ..data, which is a link to a folder of the version."""
    for version, token in (("v1", "one"), ("v2", "two")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens").write_text(json.dumps({"shop": token}))
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    tokens = of(tmp_path / "tokens")
    (tmp_path / "..data_tmp").symlink_to("v2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert tokens.refresh()
    assert tokens["shop"] == "two"


@pytest.mark.parametrize("text", ["{", "[]", '{"shop": ""}', '{"shop": "a b"}', "[" * 100_000])
def test_a_broken_file_keeps_the_tokens_is_logged_once_and_never_shown(
    file: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    logs.set_up("json", "info")
    tokens = of(file)
    for _ in range(2):
        replace_by(file, text)
        assert not tokens.refresh()
        assert not tokens.refresh()
    assert tokens["shop"] == "one"
    assert tokens.fault
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["tokens.unreadable"]
    replace_by(file, {"shop": "hunter2"})
    assert tokens.refresh()
    assert (tokens["shop"], tokens.fault) == ("hunter2", "")
    assert "hunter2" not in capsys.readouterr().err + repr(tokens)


def test_a_file_that_is_away_or_may_not_be_read_keeps_the_tokens(file: Path) -> None:
    tokens = of(file)
    file.rename(file.with_suffix(".away"))
    assert not tokens.refresh()
    assert "No such file" in tokens.fault
    file.with_suffix(".away").rename(file)
    assert not tokens.refresh()
    assert tokens.fault == ""
    file.chmod(0)
    tokens.refresh()
    assert os.geteuid() == 0 or "Permission denied" in tokens.fault
    assert tokens["shop"] == "one"


def test_the_token_of_the_environment_stays(file: Path) -> None:
    tokens = of(file, CAVENDISH_API_TOKEN="mine")
    replace_by(file, {"default": "another"})
    assert tokens.refresh()  # the account `shop` is gone
    assert dict(tokens) == {"default": "mine"}


# --- an account that the API refused


def refuse(store: Store, upstream: Upstream, account: str = "shop") -> None:
    """The API refuses the token that a process has."""
    now, token = store.fleet.now(), upstream.token_fingerprint(account)

    def step(known: RateLimit) -> tuple[RateLimit, None]:
        kind = UpstreamErrorKind.ACCOUNT
        return report_error(known, kind, "HTTP 401", None, now, now, 1.0, token=token), None

    store.shared_state.change_rate_limit(account, step)


def test_a_new_token_ends_the_pause_of_the_refused_one_once(store: Store, file: Path) -> None:
    tokens = of(file)
    upstream = upstream_for(Settings(), tokens)
    news = TokenNews(store, upstream, tokens)
    refuse(store, upstream)
    news.tell(store.fleet.now())  # it is the token that was refused
    assert store.shared_state.rate_limit("shop").paused(store.fleet.now())
    replace_by(file, {"shop": "two"})
    tokens.refresh()
    news.tell(store.fleet.now())
    assert not store.shared_state.rate_limit("shop").paused(store.fleet.now())
    refuse(store, upstream)
    news.tell(store.fleet.now())
    limit = store.shared_state.rate_limit("shop")
    assert limit.paused(store.fleet.now())
    assert limit.pauses == 2  # it does not begin with the long pause of the old token


def test_a_process_that_is_started_with_another_token_tries_it_at_once(
    store: Store, file: Path
) -> None:
    refuse(store, upstream_for(Settings(), of(file)))
    replace_by(file, {"shop": "two"})
    tokens = of(file)
    TokenNews(store, upstream_for(Settings(), tokens), tokens).tell(store.fleet.now())
    assert not store.shared_state.rate_limit("shop").paused(store.fleet.now())


def test_a_pause_after_a_429_is_not_ended_by_a_new_token(store: Store, file: Path) -> None:
    now = store.fleet.now()
    store.shared_state.change_rate_limit(
        "shop",
        lambda known: (
            report_error(known, UpstreamErrorKind.RATE, "HTTP 429", 60.0, now, now, 1.0),
            None,
        ),
    )
    tokens = of(file)
    TokenNews(store, upstream_for(Settings(), tokens), tokens).tell(now)
    assert store.shared_state.rate_limit("shop").paused(now)


def test_a_refusal_of_the_old_token_that_comes_late_does_not_pause_the_new_one(
    store: Store, loop: LoopThread, file: Path
) -> None:
    bench, tokens = Bench(store, loop), of(file)
    bench.add("a")
    replace_by(file, {"default": "two"})

    def refused(_: object) -> object:
        tokens.refresh()  # while the call is under way
        return error(401, "invalid_token")

    def prepare(upstream: Upstream) -> None:
        tokens._tokens = {"default": "one"}
        upstream._tokens = tokens

    did = bench.run(refused, prepare=prepare)  # type: ignore[arg-type]
    assert did.calls == 1
    assert not store.shared_state.rate_limit("default").pause_kind
    assert bench.all_still_tracked("a")


def test_a_batch_of_an_account_whose_token_was_removed_is_given_back_without_a_call(
    store: Store, loop: LoopThread
) -> None:
    bench = Bench(store, loop)
    bench.add("a")

    def prepare(upstream: Upstream) -> None:
        upstream._tokens = {}

    did = bench.run(lambda _: error(401, "invalid_token"), prepare=prepare)
    assert (bench.asked, did.released) == ([], 1)
    assert "no token" in did.failure
    assert bench.all_still_tracked("a")


def test_doctor_shows_a_file_that_a_worker_cannot_read_again(run: Run, store: Store) -> None:
    now, fault = store.fleet.now(), "/etc/tokens holds no JSON"
    store.fleet.beat(Member("worker@x:1", "worker", "0", now, token_fault=fault))
    findings = json.loads(run("doctor", "--offline", "--json").stdout)
    (found,) = [one for one in findings if one["what"] == "tokens of worker@x:1"]
    assert (found["ok"], found["found"]) == (False, fault)

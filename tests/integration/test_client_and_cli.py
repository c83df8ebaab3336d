"""How producers submit: the client, the command line, and the Celery task, with a real Redis."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from cavendish import Client, State, StoreUnavailable, SubmissionError, WaitTimeout
from cavendish.model import Lane
from cavendish.policy.verdicts import Outcome
from cavendish.settings import Settings
from cavendish.store import Store
from cavendish.store.fleet import Member
from cavendish_worker.celeryapp import submit_message
from conftest import Server
from shell import Run

LANE = Lane("default", "nano-banana")
SERVICE = "nano-banana"
HOOK = "https://example.com/hook"


def end(store: Store, *ids: str, state: State = State.SUCCEEDED) -> None:
    now = store.fleet.now()
    store.tasks.claim(LANE, now + 200, "t1", store.tasks.candidates(LANE, now + 100, 1000))
    tasks = store.tasks.load(LANE, ids).tasks.values()
    store.tasks.settle(
        LANE,
        "t1",
        now,
        [(Outcome(task, state, record={"id": task.id}), 0.0) for task in tasks],
        3600,
        100,
    )


def test_a_submit_answers_per_id_and_refuses_only_the_ids_at_fault(client: Client) -> None:
    answers = client.submit(["a", "", "b", "x" * 201, 7, "c\x00", "a", None], service=SERVICE)  # type: ignore[list-item]
    assert [answer.outcome for answer in answers] == [
        "new",
        "refused",
        "new",
        "refused",
        "refused",
        "refused",
        "new",
        "refused",
    ]
    assert all(answer.reason for answer in answers if answer.refused)
    assert set(client.get_many(["a", "b"], service=SERVICE)) == {"a", "b"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"service": "Nano Banana"},
        {"service": "nano-bananna"},
        {"webhook": "ftp://example.com"},
        {"webhook": "https://user:pw@example.com/"},
        {"webhook": "http://10.1.2.3/"},
        {"metadata": [1, 2]},
        {"metadata": {"x": "y" * 9000}},
        {"deadline": 0.5},
        {"deadline": 31 * 86400},
    ],
)
def test_a_submit_that_is_wrong_as_a_whole_writes_nothing(
    client: Client, store: Store, wrong: dict[str, object]
) -> None:
    with pytest.raises(SubmissionError):
        client.submit(["a"], **{"service": SERVICE, **wrong})  # type: ignore[arg-type]
    assert store.connection.redis.dbsize() == 0


def test_a_misspelt_service_is_refused_by_the_command_unless_a_setting_allows_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("submit", "--service", "nano-bananna", "a")
    assert refused.exit_code == 1
    assert "Did you mean nano-banana?" in str(refused.exception)
    monkeypatch.setenv("CAVENDISH_SERVICES", "other, nano-bananna")
    assert run("submit", "--service", "nano-bananna", "a").output == "1 new\n"


def test_wait_returns_when_all_have_ended_and_tells_of_progress(
    client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    seen: list[tuple[int, int]] = []
    later = threading.Timer(0.3, end, (store, "a", "b"))
    later.start()
    ended = client.wait(
        ["a", "b"], service=SERVICE, timeout=10, progress=lambda done, of: seen.append((done, of))
    )
    later.join()  # the wait may be over before the thread has read Redis' answer
    assert {task.state for task in ended.values()} == {State.SUCCEEDED}
    assert ended["a"].record == {"id": "a"}
    assert seen[0] == (0, 2)
    assert seen[-1] == (2, 2)


def test_wait_ends_at_its_timeout_and_names_what_was_pending(client: Client) -> None:
    client.submit(["a"], service=SERVICE)
    with pytest.raises(WaitTimeout) as caught:
        client.wait(["a"], service=SERVICE, timeout=0.3)
    assert caught.value.pending == ("a",)


def test_wait_for_an_id_that_was_never_submitted_says_so(client: Client) -> None:
    with pytest.raises(SubmissionError, match="is not tracked"):
        client.wait(["stranger"], service=SERVICE, timeout=5)


def test_redis_away_at_submit_is_an_error_that_says_so(settings: Settings) -> None:
    away = Client("redis://127.0.0.1:1/0", settings=settings)
    with pytest.raises(StoreUnavailable, match=r"Redis at redis://127.0.0.1:1/0 does not answer"):
        away.submit(["a"], service=SERVICE)


def test_redis_that_refuses_to_write_is_an_error_that_says_so(client: Client, store: Store) -> None:
    store.connection.redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            client.submit(["a"], service=SERVICE)
    finally:
        store.connection.redis.config_set("maxmemory", "0")


def test_the_password_of_redis_is_in_no_error(settings: Settings) -> None:
    away = Client("redis://user:sesame@127.0.0.1:1/0", settings=settings)
    with pytest.raises(StoreUnavailable) as caught:
        away.submit(["a"], service=SERVICE)
    assert "sesame" not in str(caught.value)


def test_cavendish_submit_takes_ids_as_words_lines_or_json_lines(run: Run, client: Client) -> None:
    assert run("submit", "--service", SERVICE, "a", "b").output == "2 new\n"
    lines = [
        "b",
        "",
        "c",
        json.dumps({"id": "d", "metadata": {"n": 1}, "webhook": HOOK}),
        json.dumps({"id": "e", "service": "flux"}),
    ]
    assert (
        run("submit", "--service", SERVICE, "-", stdin="\n".join(lines)).output
        == "3 new · 1 known\n"
    )
    assert client.get("d", service=SERVICE).metadata == {"n": 1}  # type: ignore[union-attr]
    assert client.get("e", service="flux") is not None


def test_cavendish_submit_refuses_bad_lines_and_takes_the_others(run: Run, client: Client) -> None:
    done = run(
        "submit",
        "--service",
        SERVICE,
        "-",
        stdin='a\n{"id": \n{"nope": 1}\n' + "x" * 300 + '\n{"id": "b", "color": "red"}\nc\n',
    )
    assert done.exit_code == 1
    assert "2 new · 4 refused" in done.output
    assert "unknown key 'color'" in done.output
    assert set(client.get_many(["a", "c"], service=SERVICE)) == {"a", "c"}


def test_a_line_whose_own_options_are_wrong_is_refused_and_the_others_go_through(
    run: Run, client: Client
) -> None:
    lines = [
        {"id": "m-1"},
        {"id": "m-2", "webhook": "ftp://x"},
        {"id": "m-3", "deadline": 99},
        {"id": "m-4", "deadline": 0},
    ]
    done = run(
        "submit", "--service", SERVICE, "--json", "-", stdin="\n".join(map(json.dumps, lines))
    )
    assert done.exit_code == 1
    said = {one["id"]: one["outcome"] for one in json.loads(done.stdout)}
    assert said == {"m-1": "new", "m-2": "refused", "m-3": "new", "m-4": "refused"}


def test_a_deadline_of_0_is_refused_and_not_taken_for_none(run: Run) -> None:
    assert run("submit", "--service", SERVICE, "--deadline", "0", "a").exit_code == 1


def test_lines_that_look_like_json_are_read_as_json(run: Run, client: Client) -> None:
    done = run("submit", "--service", SERVICE, "-", stdin='"quoted"\n[1]\n{bad\nplain\n')
    assert "2 new · 2 refused" in done.output
    assert set(client.get_many(["quoted", "plain"], service=SERVICE)) == {"quoted", "plain"}
    assert run("submit", "--service", SERVICE, "-", "extra").exit_code == 2


def test_what_living_workers_may_dial_may_be_named_at_submit(
    store: Store, settings: Settings
) -> None:
    bare = Client(settings=Settings.load({"CAVENDISH_REDIS_URL": settings.redis_url}))
    with pytest.raises(SubmissionError):
        bare.submit(["a"], service=SERVICE, webhook="http://10.1.2.3/")
    store.fleet.beat(Member("worker@x:1", "worker", "0", store.fleet.now(), allow=("10.1.0.0/16",)))
    assert bare.submit(["a"], service=SERVICE, webhook="http://10.1.2.3/")[0].outcome == "new"
    with pytest.raises(SubmissionError):
        bare.submit(["a"], service=SERVICE, webhook="http://10.2.2.3/")


def test_an_id_that_is_not_restarted_says_why(client: Client, store: Store) -> None:
    client.submit(["a"], service=SERVICE, webhook=HOOK)
    end(store, "a")
    (answer,) = client.submit(["a"], service=SERVICE, restart=True)
    assert answer.outcome == "known"
    assert "still pending" in answer.reason


def test_a_single_text_is_not_taken_for_a_list_of_its_characters(client: Client) -> None:
    for ask in (client.submit, client.get_many, client.wait):
        with pytest.raises(SubmissionError, match="must be a list"):
            ask("abc", service=SERVICE)


def test_cavendish_submit_prints_json_for_programs(run: Run) -> None:
    said = json.loads(run("submit", "--service", SERVICE, "--json", "a", "a\tb").stdout)
    assert [one["outcome"] for one in said] == ["new", "refused"]


def test_cavendish_submit_without_ids_or_service_is_a_usage_error(run: Run) -> None:
    assert run("submit", "--service", SERVICE).exit_code == 2
    assert run("submit", "a").exit_code == 2


def test_cavendish_show_tells_of_a_task_and_its_record(
    run: Run, client: Client, store: Store
) -> None:
    client.submit(["a"], service=SERVICE, metadata={"n": 1})
    end(store, "a")
    assert "succeeded" in run("show", "--service", SERVICE, "a").output
    assert json.loads(run("show", "--service", SERVICE, "--json", "a").stdout)["record"] == {
        "id": "a"
    }


def test_cavendish_show_finds_an_id_wherever_it_is_tracked_and_asks_where_there_are_two(
    run: Run, client: Client
) -> None:
    client.submit(["a"], service="veo")
    assert "veo" in run("show", "a").output
    client.submit(["a"], service=SERVICE)
    both = "nano-banana (account default), veo (account default)"
    advice = "give --service or --account."
    assert str(run("show", "a").exception) == f"'a' is tracked for {both}: {advice}"
    assert json.loads(run("show", "--service", "veo", "--json", "a").stdout)["service"] == "veo"
    for words in (["b"], ["--service", "luma", "a"], ["--account", "other", "a"]):
        assert isinstance(run("show", *words).exception, SubmissionError)


def test_cavendish_wait_exits_with_0_only_if_all_succeeded(
    run: Run, client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    end(store, "a")
    assert run("wait", "--service", SERVICE, "a").exit_code == 0
    end(store, "b", state=State.FAILED)
    assert run("wait", "--service", SERVICE, "a", "b").exit_code == 1


def test_cavendish_wait_takes_ids_from_stdin_and_prints_json_even_when_its_time_is_over(
    run: Run, client: Client, store: Store
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    end(store, "a")
    done = run(
        "wait", "--service", SERVICE, "--timeout", "0", "--json", "-", stdin='a\n{"id": "b"}\n\na\n'
    )
    assert (done.exit_code, isinstance(done.exception, WaitTimeout)) == (1, True)
    assert [(one["id"], one["state"]) for one in json.loads(done.stdout)] == [
        ("a", "succeeded"),
        ("b", "pending"),
    ]
    assert run("wait", "--service", SERVICE, "-", stdin="a\n").exit_code == 0
    assert "no ids" in str(run("wait", "--service", SERVICE, "-", stdin="\n").exception)


def test_ctrl_c_ends_a_wait_with_130_and_says_what_becomes_of_the_rest(
    store: Store, client: Client, server: Server
) -> None:
    client.submit(["a", "b"], service=SERVICE)
    end(store, "a")
    environment = os.environ | {"CAVENDISH_REDIS_URL": server.url}
    command = [sys.executable, "-m", "cavendish_worker.cli", "wait", "--service", SERVICE, "a", "b"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = (
            time.monotonic() + 60
        )  # the wait itself blocks for events on a connection of its own
        while not any(
            one["cmd"].startswith("xread") for one in store.connection.redis.client_list()
        ):  # type: ignore[union-attr]
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)
    assert process.returncode == 130
    # The first check of the ids may not have come back yet.
    last = r"Stopped waiting; [01] of 2 have ended, the rest is still tracked\.\n"
    assert said[0] == ""
    assert re.fullmatch(last, said[1])


def test_a_submit_of_nothing_and_a_webhook_with_a_fragment_are_refused(
    run: Run, store: Store
) -> None:
    done = run("submit", "--service", SERVICE, "-", stdin="\n")
    assert (done.exit_code, str(done.exception)) == (1, "Stdin held no ids.")
    done = run("submit", "--service", SERVICE, "--webhook", f"{HOOK}#part", "a")
    assert "#fragment" in str(done.exception)
    assert not store.tasks.lanes()


def test_what_is_refused_is_shown_with_each_backslash_once(run: Run) -> None:
    done = run("submit", "--service", SERVICE, "a\x00")
    assert "refused: 'a\\u0000': an id must not hold control characters" in done.stderr
    assert str(run("show", "C:\\x").exception) == "'C:\\x' is not tracked."


def test_an_endpoint_of_which_nothing_is_known_is_no_empty_answer(run: Run, client: Client) -> None:
    client.submit(["a"], service=SERVICE)
    for words in (("list",), ("dead", "list"), ("dead", "revive"), ("dead", "drop", "--yes")):
        assert "No endpoint is registered as 'nosuch'" in str(
            run(*words, "--endpoint", "nosuch").exception
        )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stdout_whose_encoding_lacks_characters_gets_what_it_can_show(
    client: Client, server: Server, encoding: str
) -> None:
    client.submit(["ü→1"], service=SERVICE)
    environment = os.environ | {"CAVENDISH_REDIS_URL": server.url, "PYTHONIOENCODING": encoding}

    def said(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cavendish_worker.cli", *words],
            env=environment,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode(encoding)

    assert json.loads(said("list", "--json"))["items"][0]["id"] == "ü→1"
    assert "default/nano-banana" in said("list")
    assert "1  pending" in said("top", "--once", "--every", "0.1")


def test_cavendish_status_counts_by_state(run: Run, client: Client, store: Store) -> None:
    client.submit(["a", "b", "c"], service=SERVICE, webhook=HOOK)
    end(store, "a")
    (lane,) = json.loads(run("status", "--json").stdout)["lanes"]
    assert (lane["pending"], lane["deliveries_pending"], lane["counts"]["succeeded"]) == (2, 1, 1)
    assert "succeeded" in run("status").output


def test_cavendish_doctor_says_what_to_do_about_each_fault(run: Run) -> None:
    done = run("doctor")
    assert done.exit_code == 1
    for word in ("worker", "beat", "CAVENDISH_API_TOKEN", "CAVENDISH_WEBHOOK_SECRET"):
        assert word in done.output


@pytest.mark.parametrize(
    "command",
    [
        "",
        "up",
        "submit",
        "show",
        "wait",
        "status",
        "doctor",
        "dead",
        "dead list",
        "emulate",
        "demo",
    ],
)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.exit_code == 0
    assert done.output.startswith("Usage:")


def test_a_strangers_celery_message_is_checked(client: Client) -> None:
    options = {"service": SERVICE, "metadata": {"n": 1}}
    assert submit_message.take_in(client, ["a", "b", ""], options) == "2 new · 1 refused"
    for ids, wrong in (
        ("abc", options),
        (None, options),
        (["a"], {}),
        (["a"], {**options, "colour": "red"}),
        ({"a": 1}, options),
    ):
        with pytest.raises(SubmissionError):
            submit_message.take_in(client, ids, wrong)
    with pytest.raises(SubmissionError, match="at most"):
        submit_message.take_in(client, ["a"] * 20_001, options)

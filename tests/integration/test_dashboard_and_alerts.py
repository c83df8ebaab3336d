"""Dashboard, rules and alerts, held against what is really exposed after a run in which everything
happened once.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from cavendish.clock import Clock
from cavendish.endpoints.webhook_endpoint import Endpoint
from cavendish.policy.operator_controls import Pause
from cavendish.policy.producer_quota import ProducerQuota
from cavendish.store.fleet import Member
from cavendish.submission import SubmitOptions
from cavendish_worker.polling.expire import ExpiryConfig, expire_overdue
from cavendish_worker.telemetry.metrics import answered, recorded, scraped, serving
from delivering import KEYS, LANE, Delivering, Receiver, Served
from integration.test_retrieve import Bench, error, items
from promql import Query, parse

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "cavendish.json").read_text())
#: What Prometheus itself puts on each sample.
EVERYWHERE = {"job": {"cavendish-book", "cavendish-worker"}, "instance": set[str]()}
NEEDS_PROMTOOL = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool (Debian's package prometheus) is not installed",
)
Exposed = dict[str, dict[str, set[str]]]


def rules() -> Iterator[dict[str, str]]:
    """The rules, read as far as our own file goes.

    `key: text`, and expressions that are folded over several lines.
    """
    lines = [
        line
        for line in RULES.read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    for rest in re.split(r"^ +- (?=alert:|record:)", "\n".join(lines), flags=re.MULTILINE)[1:]:
        block = rest.partition("\n  - name:")[0]
        folded = re.search(r"expr: >-\n((?: {10,}.*(?:\n|\Z))+)", block)
        found = dict(re.findall(r"^ *(\w+): (.*)$", block, re.MULTILINE))
        yield found | ({"expr": " ".join(folded[1].split())} if folded else {})


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule for rule in rules() if "record" in rule}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {rule["expr"]: name for name, rule in (RECORDED | ALERTS).items()}
QUERIES |= {target["expr"]: panel["title"] for panel in PANELS for target in panel["targets"]}


@pytest.fixture
def exposed(endpoint_index: Delivering, served: Served) -> Exposed:
    """Which metrics there are after a run, with the values of each of their labels."""
    store, bench = endpoint_index.store, Bench(endpoint_index.store, endpoint_index.loop)
    store.endpoints.add(Endpoint("shop", "https://shop.example/hook", 1.0))
    now = store.fleet.now()
    for role in ("worker", "beat"):
        store.fleet.beat(Member(role, role, "1", now))
    bench.add("a", "b", "absent")
    stamps = {"created_at": now - 30, "finished_at": now - 3, "request": {"model": "swift"}}
    good = {"id": "a", "response": {"success": True, "data": [{"url": "https://x/y"}]}, **stamps}
    bad = {"id": "b", "response": {"success": False, "error": {"code": "no"}}, **stamps}
    batch = items(good, bad)
    bench.run(
        lambda question: (
            batch if question["action"] == "retrieve_batch" else httpx.Response(200, json={})
        )
    )
    bench.add("c", "d", deadline=50.0)
    bench.run(lambda _: error(429, "too_many_requests"))
    store.connection.redis.hset(KEYS.task("d"), "submitted_at", "nonsense")
    expire_overdue(store, LANE, Clock(now + 1000), ExpiryConfig(60.0, 3600.0, 100))
    refusing = Receiver(httpx.Response(400, headers={"webhook-delivery": "abort-message"}))
    for task_id, receiver in (
        ("delivered", Receiver()),
        ("retry_later", Receiver(httpx.Response(500))),
        ("dead", refusing),
    ):
        endpoint_index.end(task_id, webhook=served(receiver))
    endpoint_index.deliver()
    recorded.claimed("nano-banana", [now - 1], now)
    recorded.REFUSED.add("service")
    quota = ProducerQuota(10, 0)
    told = SubmitOptions("nano-banana", "default", (), 60.0, "", "", "shop", restart=False)
    store.producer_usage.reserve(1, told, quota, 60.0, now, int)
    store.controls.pause(Pause("default", None, now, None, "ada"))
    for status in ("200", "500", "503"):
        answered.REQUESTS.add("GET", "/v1/tasks", status)
    answered.DURATION.add(0.01, "/v1/tasks")
    answered.SUBMITS.add("nano-banana", "tracked")
    registries = scraped.registry_of(store, 50, 10.0, quota), recorded.REGISTRY, answered.REGISTRY
    text = "".join(map(serving.text, registries))
    found: Exposed = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    for name in RECORDED:
        found[name] = {
            label: set() for label in name.partition(":")[0].split("_")
        }  # as the convention for such names has it
    return found


def faults(query: Query, exposed: Exposed) -> Iterator[str]:
    """What a query names and nobody exposes."""
    labels: set[str] = set(EVERYWHERE)
    for named in query.metrics:
        if named.metric not in exposed:
            yield f"no metric is called {named.metric}"
            continue
        known = {**EVERYWHERE, **exposed[named.metric]}
        labels |= set(known)
        for label, (mark, text) in named.matchers.items():
            if label not in known:
                yield f"{named.metric} has no label {label}"
            elif "$" not in text and known[label]:
                wanted = text.split("|") if mark == "=~" else [text]
                yield from (
                    f"{named.metric} has no {label} {one}"
                    for one in wanted
                    if one not in known[label]
                )
    yield from (f"no metric of the query has a label {label}" for label in query.labels - labels)


def test_every_metric_label_and_word_that_a_query_names_is_exposed(exposed: Exposed) -> None:
    assert len(QUERIES) > 60
    found = {
        expr: list(faults(parse(expr.replace("$__rate_interval", "5m")), exposed))
        for expr in QUERIES
    }
    assert {(QUERIES[expr], *what) for expr, what in found.items() if what} == set()


@pytest.mark.parametrize(
    "query",
    [
        "sum(cavendish_no_such_metric)",
        'cavendish_tasks_ended_total{state="sleeping"}',
        'cavendish_tasks_pending{colour="green"}',
        "sum by (colour) (cavendish_tasks_pending)",
        'rate(cavendish_polls_total{verdict=~"succeeded|lost"}[5m])',
    ],
)
def test_a_query_that_names_what_is_not_there_is_found(exposed: Exposed, query: str) -> None:
    assert len(list(faults(parse(query), exposed))) == 1


def test_every_metric_of_ours_has_its_place_in_the_dashboard_or_a_rule(exposed: Exposed) -> None:
    named = {
        metric.metric
        for query in QUERIES
        for metric in parse(query.replace("$__rate_interval", "5m")).metrics
    }
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in named}
    ours = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in exposed
        if name.startswith("cavendish_")
    }
    elsewhere = {
        "cavendish_quarantined_total",
        "cavendish_process_heartbeat_age_seconds",
    }  # cavendish_tasks_quarantined, _processes
    assert ours - families == elsewhere


def test_each_alert_has_a_section_in_the_runbook_and_each_section_an_alert() -> None:
    sections = re.findall(
        r"^### (Cavendish\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE
    )
    assert sections == list(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["runbook_url"] == f'"{{{{ $externalLabels.runbook }}}}#{name.lower()}"'
        assert rule["summary"].endswith(".")
        assert re.fullmatch(r"\{severity: (critical|warning)\}", rule["labels"])
    parts = re.split(
        r"^### Cavendish\w+$", (DEPLOY / "RUNBOOK.md").read_text(), flags=re.MULTILINE
    )[1:]
    assert all(
        re.findall(r"^\*\*(\w+)\*\*: ", part, re.MULTILINE) == ["Means", "See", "Do"]
        for part in parts
    )


def test_whoever_is_woken_gets_an_address_that_can_be_opened() -> None:
    """A link without a host leads nowhere from a telephone.

    Prometheus says where the runbook is, here and in Compose.
    """
    for place in (DEPLOY / "prometheus" / "prometheus.yml", DEPLOY / "compose.yaml"):
        assert re.search(
            r"external_labels:.*\n\s+runbook: https://\S+/RUNBOOK\.md\n", place.read_text()
        )


def test_a_few_ids_that_expire_wake_nobody() -> None:
    """A share of eight ids says little: at least ten must have expired within the hour."""
    expr = ALERTS["CavendishTasksExpired"]["expr"]
    assert re.search(
        r"> 0\.01 and on \(account, service\) sum by .*state=\"expired\".*>= 10$", expr
    )


def test_the_panels_of_the_dashboard_do_not_overlap_and_each_has_a_number_of_its_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        quarantined = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert (
            quarantined or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {
        "__rate_interval"
    }
    assert {name for query in QUERIES for name in re.findall(r"\$(\w+)", query)} <= variables
    legends = [
        (target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]
    ]
    for expr, legend in legends:
        by = parse(expr.replace("$__rate_interval", "5m")).labels
        if by:
            assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= by


@NEEDS_PROMTOOL
def test_promtool_takes_rules_configuration_and_every_query_of_the_dashboard(
    tmp_path: Path,
) -> None:
    for command in (
        ["check", "rules", str(RULES)],
        ["check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")],
    ):
        done = subprocess.run(
            ["promtool", *command], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, done.stdout + done.stderr
    queries = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, expr in enumerate(QUERIES)
    ]
    (tmp_path / "panels.yml").write_text(
        json.dumps({"groups": [{"name": "panels", "rules": queries}]})
    )
    command = ["promtool", "check", "rules", str(tmp_path / "panels.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


# --- each alert rings when it should, and not before


LANE_LABELS, HTTP = 'account="default",service="veo"', "cavendish_http_requests_total"
#: Alert -> series that let it ring (promtool's notation, one value a minute), and series that are
#: well.
RINGING: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "CavendishStoreDown": ({"cavendish_store_up": "0x90"}, {"cavendish_store_up": "1x90"}),
    "CavendishStoreEmptied": (
        {"cavendish_store_emptied": "1x90"},
        {"cavendish_store_emptied": "0x90"},
    ),
    "CavendishNoWorker": (
        {'cavendish_processes{role="worker"}': "0x90", 'cavendish_processes{role="beat"}': "1x90"},
        {'cavendish_processes{role="worker"}': "1x90", 'cavendish_processes{role="beat"}': "1x90"},
    ),
    "CavendishNoBeat": (
        {'cavendish_processes{role="beat"}': "0x90", 'cavendish_processes{role="worker"}': "3x90"},
        {'cavendish_processes{role="beat"}': "1x90"},
    ),
    "CavendishDueLag": (
        {f"cavendish_due_lag_seconds{{{LANE_LABELS}}}": "61x90"},
        {f"cavendish_due_lag_seconds{{{LANE_LABELS}}}": "59x90"},
    ),
    "CavendishSlotLoad": (  # 2 calls/s of 50 ids; 90 or 70 ids/s come in
        {
            f"cavendish_tasks_submitted_total{{{LANE_LABELS}}}": "0+5400x90",
            f"cavendish_batch_size_ids{{{LANE_LABELS}}}": "50x90",
            'cavendish_rate_limit_calls_per_second{account="default"}': "9x90",
            'cavendish_rate_limit_ceiling_calls_per_second{account="default"}': "2x90",
        },
        {
            f"cavendish_tasks_submitted_total{{{LANE_LABELS}}}": "0+4200x90",
            f"cavendish_batch_size_ids{{{LANE_LABELS}}}": "50x90",
            'cavendish_rate_limit_calls_per_second{account="default"}': "2x90",
        },
    ),
    "CavendishAccountPaused": (
        {'cavendish_pause_seconds{account="default",kind="account"}': "30 0 " * 45},
        {'cavendish_pause_seconds{account="default",kind="rate"}': "30x90"},
    ),
    "CavendishPauseForgotten": (
        {'cavendish_paused{account="default",service="",by="operator"}': "1x1560"},
        {'cavendish_paused{account="default",service="",by="operator"}': "1x700 0x10 1x850"},
    ),
    "CavendishAccountBlind": (
        {f"cavendish_service_blind_ids{{{LANE_LABELS}}}": "5x90"},
        {f"cavendish_service_blind_ids{{{LANE_LABELS}}}": "4x90"},
    ),
    "CavendishProducerNearQuota": (
        {'cavendish_producer_quota_used_ratio{producer="shop"}': "0.81x90"},
        {'cavendish_producer_quota_used_ratio{producer="shop"}': "0.8x90"},
    ),
    "CavendishServiceDown": (
        {f"cavendish_service_down_seconds{{{LANE_LABELS}}}": "5 0 " * 45},
        {f"cavendish_service_down_seconds{{{LANE_LABELS}}}": "0x40 5 0x50"},
    ),
    "CavendishServiceNotServed": (
        {f"cavendish_service_paused_lanes{{{LANE_LABELS}}}": "1x90"},
        {f"cavendish_service_paused_lanes{{{LANE_LABELS}}}": "0x90"},
    ),
    "CavendishRateRefused": (
        {
            f"cavendish_fleet_calls_total{{{LANE_LABELS}}}": "0+100x90",
            f"cavendish_fleet_calls_rate_refused_total{{{LANE_LABELS}}}": "0+6x90",
        },
        {
            f"cavendish_fleet_calls_total{{{LANE_LABELS}}}": "0+100x90",
            f"cavendish_fleet_calls_rate_refused_total{{{LANE_LABELS}}}": "0+1x90",
        },
    ),
    "CavendishWebhooksLate": (
        {"cavendish_webhooks_oldest_pending_seconds": "70x90"},
        {"cavendish_webhooks_oldest_pending_seconds": "20x90"},
    ),
    "CavendishEndpointDisabled": (
        {'cavendish_endpoint_disabled{endpoint="shop"}': "1x90"},
        {'cavendish_endpoint_disabled{endpoint="shop"}': "0x90"},
    ),
    "CavendishDeadLetters": (
        {f"cavendish_webhooks_buried_total{{{LANE_LABELS}}}": "5x30 6x60"},
        {f"cavendish_webhooks_buried_total{{{LANE_LABELS}}}": "5x90"},
    ),
    "CavendishTasksExpired": (
        {
            f'cavendish_tasks_ended_total{{{LANE_LABELS},state="expired"}}': "0+2x90",
            f'cavendish_tasks_ended_total{{{LANE_LABELS},state="succeeded"}}': "0+98x90",
        },
        {
            f'cavendish_tasks_ended_total{{{LANE_LABELS},state="expired"}}': "0x90",
            f'cavendish_tasks_ended_total{{{LANE_LABELS},state="succeeded"}}': "0+98x90",
        },
    ),
    "CavendishRecordsQuarantined": (
        {f"cavendish_tasks_quarantined{{{LANE_LABELS}}}": "1x90"},
        {f"cavendish_tasks_quarantined{{{LANE_LABELS}}}": "0x90"},
    ),
    "CavendishSubmitsRefused": (
        {"cavendish_refused_submits": "0x30 1x60"},
        {"cavendish_refused_submits": "0x90"},
    ),
    "CavendishMessagesQuarantined": (
        {'cavendish_messages_quarantined_total{instance="worker"}': "0x30 1x60"},
        {'cavendish_messages_quarantined_total{instance="worker"}': "1x90"},
    ),
    "CavendishNoHttpService": (
        {'cavendish_processes{role="http"}': "1x30 0x60"},
        {'cavendish_processes{role="http"}': "0x90"},  # nobody has it
    ),
    "CavendishHttpErrors": (
        {f"{HTTP}{{status='200'}}": "0+97x90", f"{HTTP}{{status='503'}}": "0+3x90"},
        {f"{HTTP}{{status='200'}}": "0+99x90", f"{HTTP}{{status='404'}}": "0+3x90"},
    ),
    "CavendishKeysRefused": (
        {'cavendish_http_keys_refused_total{at="api"}': "0+90x90"},
        {'cavendish_http_keys_refused_total{at="api"}': "0+30x90"},
    ),
    "CavendishSubmitsUncertain": (
        {"cavendish_uncertain_submits": "1x90"},
        {"cavendish_uncertain_submits": "0x90"},
    ),
    "CavendishCallbacksForeign": (
        {'cavendish_callbacks_total{outcome="foreign"}': "0+90x90"},
        {
            'cavendish_callbacks_total{outcome="foreign"}': "0+30x90",
            'cavendish_callbacks_total{outcome="accepted"}': "0+900x90",
        },
    ),
}


#: When each is looked at; by default after an hour.
LOOKED_AT = {"CavendishPauseForgotten": "25h"}


def test_every_alert_is_tried_out() -> None:
    assert list(RINGING) == list(ALERTS)


@NEEDS_PROMTOOL
def test_each_alert_rings_when_it_should_and_not_when_all_is_well(tmp_path: Path) -> None:
    tests = []
    for alert, (ill, well) in RINGING.items():
        for series, rings in ((ill, 1), (well, 0)):
            count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
            tests.append(
                {
                    "name": f"{alert} {'rings' if rings else 'is silent'}",
                    "interval": "1m",
                    "input_series": [
                        {"series": name, "values": values} for name, values in series.items()
                    ],
                    "promql_expr_test": [
                        {
                            "expr": count,
                            "eval_time": LOOKED_AT.get(alert, "60m"),
                            "exp_samples": [{"labels": "{}", "value": rings}],
                        }
                    ],
                }
            )
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


#: A stack on which nothing happens, all that the alerts look at included.
IDLE = {
    "cavendish_store_up": "1x90",
    'cavendish_processes{role="worker"}': "1x90",
    'cavendish_processes{role="beat"}': "1x90",
    'cavendish_processes{role="http"}': "1x90",
    f"{HTTP}{{status='200'}}": "0x90",
    "cavendish_uncertain_submits": "0x90",
    'cavendish_pause_seconds{account="default",kind="account"}': "0x90",
    'cavendish_rate_limit_calls_per_second{account="default"}': "2x90",
    f"cavendish_batch_size_ids{{{LANE_LABELS}}}": "50x90",
    f"cavendish_fleet_calls_total{{{LANE_LABELS}}}": "100x90",
    f"cavendish_fleet_calls_rate_refused_total{{{LANE_LABELS}}}": "50x90",
    f"cavendish_due_lag_seconds{{{LANE_LABELS}}}": "0x90",
    f"cavendish_tasks_submitted_total{{{LANE_LABELS}}}": "100x90",
    f'cavendish_tasks_ended_total{{{LANE_LABELS},state="expired"}}': "50x90",
    f"cavendish_webhooks_buried_total{{{LANE_LABELS}}}": "9x90",
    "cavendish_webhooks_oldest_pending_seconds": "0x90",
}
#: The account is held while ids come in: they wait, and a rate limit that nobody uses has fallen to
#: its start.
HELD = IDLE | {
    'cavendish_pause_seconds{account="default",kind="account"}': "300 0 " * 45,
    f"cavendish_due_lag_seconds{{{LANE_LABELS}}}": "0+60x90",
    f"cavendish_tasks_submitted_total{{{LANE_LABELS}}}": "0+6000x90",
}


#: An operator has paused the account, or the service, while ids come in.
WAITING = {
    f"cavendish_due_lag_seconds{{{LANE_LABELS}}}": "0+60x90",
    f"cavendish_tasks_submitted_total{{{LANE_LABELS}}}": "0+6000x90",
}
BY_OPERATOR, SERVICE_BY_OPERATOR = (
    IDLE
    | WAITING
    | {f'cavendish_paused{{account="default",service="{service}",by="operator"}}': "1x90"}
    for service in ("", "veo")
)


@NEEDS_PROMTOOL
@pytest.mark.parametrize(
    ("series", "ringing"),
    [
        (IDLE, []),
        (HELD, ["CavendishAccountPaused"]),
        (BY_OPERATOR, []),
        (SERVICE_BY_OPERATOR, ["CavendishSlotLoad"]),
        (IDLE | WAITING, ["CavendishDueLag", "CavendishSlotLoad"]),
    ],
)
def test_an_idle_stack_makes_no_alert_a_refused_account_makes_one_and_an_operators_pause_makes_none(
    tmp_path: Path, series: dict[str, str], ringing: list[str]
) -> None:
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in ringing]
    expected = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": "60m",
        "exp_samples": samples,
    }
    given = [{"series": name, "values": values} for name, values in series.items()]
    tests = [{"interval": "1m", "input_series": given, "promql_expr_test": [expected]}]
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests})
    )
    command = ["promtool", "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

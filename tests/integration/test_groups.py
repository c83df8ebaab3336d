"""Groups: ids that are waited for together, and the one webhook once all of them have ended."""

from __future__ import annotations

import json

from cavendish import Client, State, Task
from cavendish.model import GROUPS, Lane
from cavendish.policy.verdicts import Outcome
from cavendish.store import Store
from cavendish.store.keys import LaneKeys
from delivering import Delivering, Receiver, Served

SERVICE, NAME = "nano-banana", "order-7"


def end(store: Store, *ids: str, state: State = State.SUCCEEDED, service: str = SERVICE) -> None:
    """Let the API have said how these ids ended."""
    for task_id in ids:
        lane, now = Lane("default", service), store.fleet.now()
        token = f"t-{task_id}"
        chosen = [one for one in store.tasks.candidates(lane, now + 1e6, 1000) if one.id == task_id]
        store.tasks.claim(lane, now + 60, token, chosen)
        task = store.tasks.load(lane, [task_id]).tasks[task_id]
        store.tasks.settle(lane, token, now, [(Outcome(task, state), 0.0)], 3600, 100)


def test_a_group_completes_once_all_its_ids_of_several_services_have_ended(
    endpoint_index: Delivering, store: Store, client: Client, served: Served
) -> None:
    receiver = Receiver()
    url = served(receiver) + "/hook"
    client.submit(["a", "b"], service=SERVICE, webhook=url, group=NAME, group_size=3)
    client.submit([Task("c", key="mine")], service="flux", group=NAME)
    end(store, "a")
    end(store, "c", service="flux", state=State.FAILED)
    endpoint_index.deliver()
    found = client.group(NAME)
    assert found is not None
    assert (found.joined, found.size, found.ended, found.completed_at) == (3, 3, 2, None)
    end(store, "b")
    endpoint_index.deliver()
    endpoint_index.deliver()
    bodies = [json.loads(request.content) for request in receiver.got]
    assert [body["type"] for body in bodies] == ["task.succeeded"] * 2 + ["group.completed"]
    found = client.wait_group(NAME, timeout=1)
    assert bodies[-1]["data"] == {
        "group": NAME,
        "account": "default",
        "size": 3,
        "counts": {"succeeded": 2, "failed": 1},
        "first_submitted_at": found.first_submitted_at,
        "completed_at": found.completed_at,
    }
    assert bodies[0]["data"]["group"] == NAME
    lane = store.groups.lane("default", NAME)
    assert lane.service == GROUPS
    raw, keys = store.connection.redis, LaneKeys(lane)
    kept = [keys.task(NAME), keys.result(NAME), keys.members(NAME)]
    assert all(0 < raw.ttl(key) <= 9 * 86400 for key in kept)

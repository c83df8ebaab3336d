"""The usual way to poll with Celery: one Celery task per id that asks, and retries in 3 s until the
id is finished.

`celery -A peers_celery worker -P threads -c 16`, with PEER_API_URL, PEER_TOKEN and PEER_BROKER in
the environment.
"""

from __future__ import annotations

import os

import httpx
from celery import Celery, Task

app = Celery("peers", broker=os.environ["PEER_BROKER"], set_as_current=False)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
http = httpx.Client(
    base_url=os.environ["PEER_API_URL"],
    headers={"authorization": f"Bearer {os.environ['PEER_TOKEN']}"},
    timeout=30,
    trust_env=False,
)


@app.task(bind=True, name="peers.look", max_retries=None)
def poll(self: Task, task_id: str) -> None:
    """Ask about one id; a refused call is tried again like a task that is still running."""
    try:
        answer = http.post("/nano-banana/tasks", json={"action": "retrieve", "id": task_id})
        finished = answer.status_code == 200 and answer.json().get("finished_at")
    except httpx.HTTPError as error:
        raise self.retry(exc=error, countdown=3) from error
    if not finished:
        raise self.retry(countdown=3)

"""What five clients of the vendor, unmodified, take the records of some ids for.

    PYTHONPATH=.venv/clients python tests/clients/verdicts.py ADDRESS ID...

It runs in an environment of its own, and prints `{id: {client: verdict}}`. A verdict is pending,
succeeded, failed, or crash. LangChain and Langflow have the address of the API built in: their
requests are led to ADDRESS, as a name server could lead them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable

ADDRESS, IDS = sys.argv[1], sys.argv[2:]
TOKEN, SERVICE = "emulated", "nano-banana"
os.environ |= {"ACEDATACLOUD_API_BASE_URL": ADDRESS, "ACEDATACLOUD_API_TOKEN": TOKEN}
os.environ |= {"LOGURU_LEVEL": "CRITICAL"}

import httpx  # noqa: E402 (the clients read the environment when they are imported)
import lfx_acedatacloud_nano_banana.client as langflow  # noqa: E402
from acedatacloud import AceDataCloud  # noqa: E402
from acedatacloud._runtime.tasks import TimeoutError as NotYet  # noqa: E402
from acedatacloud._runtime.tasks import task_status  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from core.server import mcp  # noqa: E402
from langchain_acedatacloud.client import AceAPIClient  # noqa: E402
from langchain_acedatacloud.tools import AceRetrieveTool  # noqa: E402
from nanobanana_cli.main import cli  # noqa: E402
from tools import task_tools  # noqa: E402

langflow.API_BASE = ADDRESS


class Led(httpx.HTTPTransport):
    """Leads every request to ADDRESS."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.url = httpx.URL(ADDRESS).copy_with(raw_path=request.url.raw_path)
        return super().handle_request(request)


class Retrieve(AceRetrieveTool):
    """The tool that the LangChain packages of each service define."""

    name: str = "retrieve"
    description: str = "Retrieve a task."
    endpoint = f"/{SERVICE}/tasks"


def sdk(task_id: str) -> str:
    with AceDataCloud(api_token=TOKEN, base_url=ADDRESS) as client:
        try:
            wait = {"poll_interval": 0.1, "max_wait": 0.3}
            return task_status(client.tasks.wait(task_id, service=SERVICE, **wait))
        except NotYet:
            return "pending"


def command_line(task_id: str) -> str:
    said = CliRunner().invoke(cli, ["wait", task_id, "--interval", "1", "--timeout", "1"])
    if said.exit_code:
        return "pending" if "did not complete" in said.output else "crash"
    return "failed" if "failed." in said.output else "succeeded"


def langchain(task_id: str) -> str:
    with httpx.Client(transport=Led(), timeout=60) as http:
        tool = Retrieve(client=AceAPIClient(TOKEN, http_client=http))
        return str(tool.invoke({"task_id": task_id})["status"])


async def mcp_server(task_id: str) -> str:
    said = json.loads(await task_tools.nanobanana_get_task(task_id))["mcp_task_polling"]
    ends = {"succeeded": said["is_complete"], "failed": said["is_failed"]}
    return next((end for end, told in ends.items() if told), "pending")


async def langflow_component(task_id: str) -> str:
    asked = {"action": "retrieve", "id": task_id}
    said = await langflow.post_json(f"/{SERVICE}/tasks", TOKEN, asked)
    words = {"service": "nano_banana", "retrieved": True, "requested_task_id": task_id}
    return str(langflow.normalize(said, **words)["status"])


Ask = Callable[[str], Awaitable[str]]
CLIENTS: dict[str, Ask] = {
    "SDK": lambda task_id: asyncio.to_thread(sdk, task_id),
    "MCP server": mcp_server,
    "CLI": lambda task_id: asyncio.to_thread(command_line, task_id),
    "Langflow": langflow_component,
    "LangChain": lambda task_id: asyncio.to_thread(langchain, task_id),
}


async def verdict(ask: Ask, task_id: str) -> str:
    try:
        return await ask(task_id) or "pending"
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return "crash"


async def main() -> None:
    assert mcp.name == "nanobanana"
    told: dict[str, dict[str, str]] = {task_id: {} for task_id in IDS}
    for name, ask in CLIENTS.items():
        together = name != "CLI"  # its output is that of the process
        coming = [verdict(ask, task_id) for task_id in IDS]
        said = await asyncio.gather(*coming) if together else [await one for one in coming]
        for task_id, one in zip(IDS, said, strict=True):
            told[task_id][name] = one
    print(json.dumps(told))


if __name__ == "__main__":
    asyncio.run(main())

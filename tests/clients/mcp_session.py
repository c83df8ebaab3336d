"""A session with the vendor's MCP server, unmodified, over its standard input, as a model has it.

    PYTHONPATH=.venv/clients python tests/clients/mcp_session.py ADDRESS COUNT

It buys COUNT pictures through ADDRESS, asks for each until it has ended, then for all at once, and
prints `{"ids": […], "polling": [what the server says of each end], "batch": text}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

ADDRESS, COUNT = sys.argv[1], int(sys.argv[2])
SERVER = StdioServerParameters(
    command=sys.executable,
    args=["-m", "main"],
    env=os.environ
    | {"ACEDATACLOUD_API_BASE_URL": ADDRESS, "ACEDATACLOUD_API_TOKEN": "emulated"}
    | {"LOGURU_LEVEL": "CRITICAL"},
)


async def call(session: ClientSession, name: str, **arguments: Any) -> str:
    said = await session.call_tool(f"nanobanana_{name}", arguments)
    assert not said.isError, said
    return str(said.content[0].text)


async def bought(session: ClientSession) -> dict[str, Any]:
    """Buy a picture, and ask for it until the server says that it has ended."""
    made = json.loads(await call(session, "generate_image", prompt="a banana"))
    while True:
        told = json.loads(await call(session, "get_task", task_id=made["task_id"]))
        if told["mcp_task_polling"]["terminal_state_reached"]:
            return {"id": made["task_id"], **told["mcp_task_polling"]}


async def main() -> None:
    async with stdio_client(SERVER) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        ends = await asyncio.gather(*(bought(session) for _ in range(COUNT)))
        ids = [end["id"] for end in ends]
        batch = await call(session, "get_tasks_batch", task_ids=ids)
        print(json.dumps({"ids": ids, "polling": ends, "batch": batch}))


if __name__ == "__main__":
    asyncio.run(main())

"""Puts the HTTP service together: every subject is a router of its own, named in ROUTERS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from cavendish_worker.service import health_routes, problem_details, task_routes
from cavendish_worker.service.parts import Parts

#: The subjects. Add a router here, and its paths are served and documented; those under /v1 have
#: `route_class=GuardedRoute`, which asks for a key before it reads the body.
ROUTERS = (
    task_routes.router,
    health_routes.router,
)
#: Bytes of the largest body: 10,000 ids with metadata of some hundred bytes each.
LARGEST_BODY = 8 * 2**20


def create_app(parts: Parts) -> FastAPI:
    """The application of these parts, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await parts.close()

    app = FastAPI(
        title="Cavendish",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        max_body_size=LARGEST_BODY,
    )
    app.state.parts = parts
    problem_details.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app

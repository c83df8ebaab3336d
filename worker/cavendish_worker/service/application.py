"""Puts the HTTP service together: every subject is a router of its own, named in ROUTERS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from cavendish_worker.service import (
    callback_routes,
    change_routes,
    control_routes,
    dead_letter_routes,
    endpoint_routes,
    event_routes,
    fleet_member,
    group_routes,
    health_routes,
    page_routes,
    problem_details,
    status_routes,
    task_routes,
)
from cavendish_worker.service.gateway import gateway_routes
from cavendish_worker.service.held_requests import cancelled
from cavendish_worker.service.openapi_document import ABOUT, Documented
from cavendish_worker.service.parts import Parts

#: The subjects. Add a router here, and its paths are served and documented; those under /v1 have
#: `route_class=GuardedRoute`, which asks for a key before it reads the body.
ROUTERS = (
    task_routes.router,
    change_routes.router,
    group_routes.router,
    event_routes.router,
    endpoint_routes.router,
    dead_letter_routes.router,
    control_routes.router,
    status_routes.router,
    health_routes.router,
    page_routes.router,
    callback_routes.router,
    gateway_routes.router,  # the last: it takes every POST to a service
)


def create_app(parts: Parts) -> FastAPI:
    """The application of these parts, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        beating = asyncio.create_task(fleet_member.beat(parts.store))
        yield
        await cancelled(beating)
        await parts.close()

    app = Documented(
        title="Cavendish",
        version=version("cavendish"),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.parts = parts
    problem_details.install(app)
    for router in ROUTERS:
        app.router.routes.extend(router.routes)
    return app

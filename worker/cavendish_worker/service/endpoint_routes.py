"""Webhook endpoints over HTTP: register, change, switch; they belong to all accounts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Response, Security
from pydantic import BaseModel, BeforeValidator, Field

from cavendish import NewSecret, WebhookEndpoint
from cavendish.endpoints.webhook_events import MOST as MOST_EVENTS
from cavendish.endpoints.webhook_headers import MOST as MOST_HEADERS
from cavendish_worker.service.guarded_route import BEARER, OF_ALL, GuardedRoute
from cavendish_worker.service.json_answers import answer
from cavendish_worker.service.parts import Shared
from cavendish_worker.service.task_bodies import Body, Listed, all_texts, few

router = APIRouter(
    prefix="/v1/endpoints",
    tags=["endpoints"],
    route_class=GuardedRoute,
    dependencies=[Security(BEARER), OF_ALL],
)


Headers = Annotated[dict[str, str], Field(max_length=MOST_HEADERS), BeforeValidator(all_texts)]


class OptionsBody(Body):
    """Options of an endpoint."""

    events: Annotated[
        str | Annotated[Listed[str], Field(max_length=MOST_EVENTS)], few(MOST_EVENTS)
    ] = Field(
        default=[], description="Kinds that it gets, such as task.failed or task.*; default: all."
    )
    headers: Headers | None = Field(None, description="Headers that are sent with each webhook.")
    rate: float | None = Field(None, description="Maximum number of webhooks per minute.")
    retries: int | None = Field(None, description="Number of attempts after the first one.")
    retry_for: float | None = Field(
        None, description="Seconds from the first attempt to the last one."
    )
    unencrypted: bool = Field(
        default=False, description="Store secrets unencrypted where this process has no key."
    )


class AddBody(OptionsBody):
    """A new endpoint."""

    name: str = Field(examples=["shop"])
    url: str = Field(examples=["https://example.com/hook"])
    ed25519: bool = Field(default=False, description="Also sign with a key pair (v1a).")


class UpdateBody(OptionsBody):
    """Options that change; all others stay."""

    url: str | None = None
    remove_headers: Listed[str] = Field(default=[], max_length=MOST_HEADERS)
    reset: Listed[Literal["events", "headers", "rate", "retries"]] = Field(
        default=[], max_length=4, description="Options that return to their default."
    )


class RotateBody(Body):
    """How long the old secret also signs."""

    overlap: float = Field(default=86400.0, description="Seconds.")
    unencrypted: bool = False


class DisableBody(Body):
    """Why it is disabled."""

    reason: str = "by hand"


class EndpointItems(BaseModel):
    """The endpoints that are registered, disabled, or have pending deliveries."""

    items: list[WebhookEndpoint]


class Removed(BaseModel):
    """Deliveries that waited for it; they become dead letters when they are due."""

    waiting: int


class Switched(BaseModel):
    """`changed` is false if the endpoint was in this state already."""

    changed: bool


@router.get("", summary="List endpoints", response_model=EndpointItems)
async def endpoints(parts: Shared) -> Response:
    """The endpoints that are registered, disabled, or have pending deliveries."""
    return answer({"items": await parts.client.endpoints()})


@router.post("", summary="Register an endpoint", status_code=201, response_model=NewSecret)
async def add_endpoint(body: AddBody, parts: Shared) -> Response:
    """Its secret is shown only now."""
    told = body.model_dump(exclude={"name", "url"})
    new = await parts.client.add_endpoint(body.name, body.url, **told)
    return answer(new, 201, {"location": f"/v1/endpoints/{new.endpoint}"})


@router.get("/{which}", summary="Get an endpoint", response_model=WebhookEndpoint)
async def endpoint(which: str, parts: Shared) -> Response:
    """By its name, or by the hash of its URL."""
    return answer(await parts.client.endpoint(which))


@router.patch("/{name}", summary="Change an endpoint", response_model=WebhookEndpoint)
async def update_endpoint(name: str, body: UpdateBody, parts: Shared) -> Response:
    """It keeps its secret, and all options that the body does not name."""
    return answer(await parts.client.update_endpoint(name, **body.model_dump()))


@router.delete("/{name}", summary="Remove an endpoint", response_model=Removed)
async def remove_endpoint(name: str, parts: Shared) -> Response:
    """Forget it and its secrets."""
    return answer({"waiting": await parts.client.remove_endpoint(name)})


@router.post("/{name}/rotate", summary="Rotate the secret", response_model=NewSecret)
async def rotate_endpoint(name: str, parts: Shared, body: RotateBody | None = None) -> Response:
    """For a while both secrets sign each webhook."""
    told = body or RotateBody()
    return answer(await parts.client.rotate_endpoint(name, **told.model_dump()))


@router.post("/{which}/enable", summary="Enable an endpoint", response_model=Switched)
async def enable_endpoint(which: str, parts: Shared) -> Response:
    """Send to it again, at once."""
    return answer({"changed": await parts.client.enable_endpoint(which)})


@router.post("/{which}/disable", summary="Disable an endpoint", response_model=Switched)
async def disable_endpoint(which: str, parts: Shared, body: DisableBody | None = None) -> Response:
    """Send nothing to it until it is enabled."""
    reason = (body or DisableBody()).reason
    return answer({"changed": await parts.client.disable_endpoint(which, reason=reason)})

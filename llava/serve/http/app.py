"""The web application: routes, and errors in one shape."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from llava import __version__
from llava.serve.http import chat
from llava.serve.http.errors import ApiError
from llava.serve.http.guard import Guard, error_response
from llava.serve.http.service import Service, shutting_down

logger = logging.getLogger("llava.serve")


class ErrorContent(BaseModel):
    """What went wrong, in one sentence, and the request's id in the log."""

    message: str
    type: str
    param: str | None
    code: str | None
    request_id: str


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorContent


class ModelInfo(BaseModel):
    """The model, as OpenAI lists it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "llava-inspect"


class ModelList(BaseModel):
    """All models: one."""

    object: str = "list"
    data: list[ModelInfo]


class Status(BaseModel):
    """Whether all is well."""

    status: str


router = APIRouter()


@router.get("/v1/models")
def list_models(request: Request) -> ModelList:
    """List the model."""
    return ModelList(data=[_model_info(request.app.state.service)])


@router.get("/v1/models/{model:path}")
def get_model(request: Request, model: str) -> ModelInfo:
    """Describe the model."""
    service: Service = request.app.state.service
    chat.check_model(service, model)
    return _model_info(service)


@router.get("/health")
def health(request: Request) -> Status:
    """Tell whether the process works: 503 where the engine has failed and a restart is needed."""
    service: Service = request.app.state.service
    if service.live.closed and not service.draining:
        raise ApiError(503, "the engine has failed; restart the service", kind="server_error", code="failed")
    return Status(status="ok")


@router.get("/ready")
def ready(request: Request) -> Status:
    """Tell whether new requests are taken: 503 where a proxy should send them elsewhere."""
    service: Service = request.app.state.service
    if service.live.closed or service.draining:
        raise shutting_down()
    return Status(status="ready")


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request) -> Response:
    """Give the figures of the service in Prometheus' text format."""
    service: Service = request.app.state.service
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model_info(service: Service) -> ModelInfo:
    return ModelInfo(id=service.model_id, created=service.started)


def create_app(service: Service, api_key: str | None = None, routers: Sequence[APIRouter] = ()) -> Guard:
    """Make the ASGI application of a service.

    Args:
        service: The model that it serves.
        api_key: What clients must send as bearer; None for no key.
        routers: More routes.
    """
    responses: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
        for status in (400, 401, 404, 408, 413, 422, 429, 500, 503)
    }
    app = FastAPI(
        title="LLaVA Inspect",
        version=__version__,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        responses=responses,
    )
    app.state.service = service
    for each in (router, chat.router, *routers):
        app.include_router(each)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, service, api_key)


def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_response(error, request.scope["request_id"])


def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    """Tell the first thing that is wrong in a request, as OpenAI does with status 400."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    reason = first["msg"].removeprefix("Value error, ")
    param = ".".join(place) or None
    message = f"{param}: {reason}" if param else reason
    return _api_error(request, ApiError(400, message[:500], param=param))


def _http_error(request: Request, error: Exception) -> JSONResponse:
    """Give Starlette's own refusals (no such path or method, a body that is no JSON) our shape."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: there is no such route"
    if error.status_code != 404:
        message = str(error.detail)
    return _api_error(request, ApiError(error.status_code, message, headers=error.headers))


def _failed(request: Request, error: Exception) -> JSONResponse:
    """Answer for a mistake of ours; the log has the traceback under the request's id."""
    request_id = request.scope["request_id"]
    logger.error("%s failed", request_id, exc_info=error)
    message = f"the service failed on this request; its log says more under {request_id}"
    return error_response(ApiError(500, message, kind="server_error"), request_id)

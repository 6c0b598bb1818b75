"""Errors as the web tells them: `application/problem+json`, RFC 9457, wherever the router is mounted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from alertrec.errors import (
    AlertrecError,
    DataError,
    ModelStoreError,
    NotFittedError,
    TransientError,
    UnknownRecommendationError,
    UnknownUserError,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5

_STATUS_OF: tuple[tuple[type[AlertrecError], HTTPStatus], ...] = (  # the first that fits
    (UnknownUserError, HTTPStatus.NOT_FOUND),
    (UnknownRecommendationError, HTTPStatus.NOT_FOUND),
    (DataError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NotFittedError, HTTPStatus.CONFLICT),
    (TransientError, HTTPStatus.SERVICE_UNAVAILABLE),
    (ModelStoreError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(BaseModel):
    """What went wrong: `detail` says what came, what was expected and what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Not Found",
                "status": 404,
                "detail": "recommendation 1b0c… was not made to this user; read the list again",
            }
        }
    )


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that tells of an error."""
    body = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return JSONResponse(body.model_dump(), status, dict(headers or {}), media_type=MEDIA_TYPE)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of these errors."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}}
        for status in statuses
    }


class ProblemRoute(APIRoute):
    """A route whose errors are problems, whatever the app does with those of its other routes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handle = super().get_route_handler()

        async def handle_problems(request: Request) -> Response:
            try:
                return await handle(request)
            except (AlertrecError, HTTPException, RequestValidationError) as error:
                return problem_of(error)

        return handle_problems


def problem_of(error: Exception) -> Response:
    """Return the answer that tells of an exception."""
    status, detail = status_and_detail(error)
    if isinstance(error, HTTPException):
        return problem(status, detail, error.headers)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(status, detail, headers)


def status_and_detail(error: Exception) -> tuple[int, str]:
    """Return what an exception means to who asked."""
    if isinstance(error, HTTPException):
        return error.status_code, error.detail
    if isinstance(error, RequestValidationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY, _what_is_invalid(error.errors())
    for kind, status in _STATUS_OF:
        if isinstance(error, kind):
            return status, str(error)
    # What nobody foresaw is told by its kind alone: the message may be about a customer.
    logger.error("a request failed: %s", type(error).__name__, extra={"action": "request_failed"}, exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; the operator finds the reason in its log"


def _what_is_invalid(errors: Sequence[Any]) -> str:
    """Say where a request is wrong and how; not what it held, since that is a customer's."""
    return "; ".join(f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in errors)

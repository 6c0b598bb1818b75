"""Errors as the web tells them: `application/problem+json`, RFC 9457, wherever the router is mounted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from reprlib import repr as shortened
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from alertrec.errors import (
    AlertrecError,
    ChangedMeanwhileError,
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
_MOST_ERRORS = 10
_LONGEST_NAME = 40

_STATUS_OF: tuple[tuple[type[AlertrecError], HTTPStatus], ...] = (  # the first that fits
    (UnknownUserError, HTTPStatus.NOT_FOUND),
    (UnknownRecommendationError, HTTPStatus.NOT_FOUND),
    (ChangedMeanwhileError, HTTPStatus.CONFLICT),
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


_EXAMPLE = {
    "type": "about:blank",
    "title": "Not Found",
    "status": 404,
    "detail": "recommendation 1b0c… was not made to this user; read the list again",
}


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer that tells of an error."""
    body = Problem(title=phrase_of(status), status=status, detail=detail)
    return JSONResponse(body.model_dump(), status, dict(headers or {}), media_type=MEDIA_TYPE)


def phrase_of(status: int) -> str:
    """Return the words of a status, of one that nobody has standardised too."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of these errors."""
    # In full: a model would be told under the media type of the route as well.
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema(), "example": _EXAMPLE}}
    return {status: {"description": phrase_of(status), "content": content} for status in statuses}


class ProblemRoute(APIRoute):
    """A route whose errors are problems, whatever the app does with those of its other routes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of requests."""
        handle = super().get_route_handler()

        async def handle_problems(request: Request) -> Response:
            try:
                response = await handle(request)
            except (AlertrecError, HTTPException, RequestValidationError) as error:
                response = problem_of(error)
            # What a customer is shown is theirs alone: no proxy and no browser keeps it.
            response.headers["Cache-Control"] = "no-store"
            return response

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
        return error.status_code, str(error.detail)
    if isinstance(error, RequestValidationError):
        return HTTPStatus.UNPROCESSABLE_ENTITY, _what_is_invalid(error.errors())
    status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), None)
    if status is None:
        # What nobody foresaw is told by its kind alone: the message may be about a customer.
        logger.error("a request failed: %s", type(error).__name__, extra={"action": "request_failed"}, exc_info=error)
        return HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed; the operator finds the reason in its log"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        # Which server is away, and where it stands, is nothing for customers.
        logger.warning("a request was put off: %s", error, extra={"action": "request_put_off"})
        return status, "this cannot be answered just now; try again in some seconds"
    return status, str(error)


def _what_is_invalid(errors: Sequence[Any]) -> str:
    """Say where a request is wrong and how; not what it held, since that is a customer's."""
    return "; ".join(f"{_place(each['loc'])}: {each['msg']}" for each in errors[:_MOST_ERRORS])


def _place(parts: Sequence[Any]) -> str:
    """Return where an error is, names that were made up by who asks cut short."""
    return ".".join(shortened(part) if len(str(part)) > _LONGEST_NAME else str(part) for part in parts)

"""The socket that clients of the earlier system speak: the list is sent whenever it was written."""

# No `from __future__ import annotations`: FastAPI evaluates the annotations, and a dependency is a local name here.

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from starlette.status import WS_1001_GOING_AWAY, WS_1008_POLICY_VIOLATION

from alertrec.web.customers import ready_messages
from alertrec.web.limits import Gates
from alertrec.web.resources import Web


def add_socket(router: APIRouter, web: Web, current_user: Any, gates: Gates) -> None:
    """Add the socket."""

    @router.websocket("/ws/recommendations/{user_id}", dependencies=[gates.stream])
    async def follow(socket: WebSocket, user_id: str, signed_in: Annotated[str, Depends(current_user)]) -> None:
        """Send `{type: "recommendations_ready", user_id, recommendations, timestamp}`; to the customer themselves."""
        if signed_in != user_id:
            await socket.close(WS_1008_POLICY_VIOLATION, "this is another customer's")
            return
        await socket.accept()
        await _until_first(_send(web, socket, user_id), _wait_for_end(socket))


async def _send(web: Web, socket: WebSocket, user_id: str) -> None:
    async for message in ready_messages(web, user_id):
        await socket.send_json(message)
    await socket.close(WS_1001_GOING_AWAY)  # the client connects anew


async def _wait_for_end(socket: WebSocket) -> None:
    """Take what the client says, which means nothing, until it goes."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.receive()
            if socket.client_state.name == "DISCONNECTED":
                return


async def _until_first(*coroutines: Any) -> None:
    """Run some coroutines until the first has ended, and end the others."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

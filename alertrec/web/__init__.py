"""The web app's side: `create_router` for a bank's own app, `create_app` for one that runs alone."""

from __future__ import annotations

from alertrec.web.app import create_app
from alertrec.web.router import create_router

__all__ = ["create_app", "create_router"]

"""The report on a training, for people: one self-contained HTML page, and tables for the terminal."""

from __future__ import annotations

from alertrec.reporting.page import render_page
from alertrec.reporting.table import render_tables

__all__ = ["render_page", "render_tables"]

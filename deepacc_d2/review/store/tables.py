"""The tables of a review's store; migrations/ makes them, this says what they hold now."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

cases = Table(
    "cases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("version", Integer, nullable=False),
)
"""A patient or culture; ``version`` is the last entry of the trail of it or one of its cells."""

cells = Table(
    "cells",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("case_id", Integer, ForeignKey("cases.id"), nullable=True, index=True),
    Column("prediction_sha256", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("confidence", Float, nullable=False),
    Column("summary", Text, nullable=False),
)
"""A cell; ``state``, ``confidence`` and ``summary`` are computed."""

predictions = Table(
    "predictions",
    metadata,
    Column("cell_id", Integer, ForeignKey("cells.id"), primary_key=True),
    Column("prediction", Text, nullable=False),
    Column("job", Text, nullable=False),
)
"""What was predicted of a cell, and its ``job.json``, as text.

Apart from the cells: with some 30 KB each, lists would read them, and each event write them anew.
"""

trail = Table(
    "trail",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("case_id", Integer, nullable=True),
    Column("cell_id", Integer, nullable=True),
    Column("base", Integer, nullable=False),
    Column("event", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("key", String(64), nullable=True, unique=True),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("trail_of_cell", "cell_id", "seq"),
    Index("trail_of_case", "case_id", "seq"),
)
"""The audit trail, only ever added to. ``key`` is the sender's, so that sending twice adds once."""

head = Table(
    "trail_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)
"""The last entry, so that a shortened trail shows; its lock orders the writers."""

corrections = Table(
    "corrections",
    metadata,
    Column("cell_id", Integer, ForeignKey("cells.id"), primary_key=True),
    Column("chromosome", Integer, primary_key=True),
    Column("predicted", String(4), nullable=False),
    Column("current", String(4), nullable=False),
    Index("corrections_by_class", "predicted", "current"),
)
"""Chromosomes that are now something else than predicted, computed; empty: none."""

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
)
"""People; ``password`` is an argon2 hash."""

sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    Column("user", String(64), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
)
"""Logins that are in force; times in seconds since 1970."""

"""Who may do what: users with argon2 passwords, roles, logins that end, and a brake on guessing."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, insert, select, update

from deepacc_d2.errors import ConfigError, UserError
from deepacc_d2.review.store.chain import add_entry
from deepacc_d2.review.store.database import reading, writing
from deepacc_d2.review.store.store import Store
from deepacc_d2.review.store.tables import sessions, users

READER, REVIEWER, ADMINISTRATOR = "reader", "reviewer", "administrator"
ROLES = (READER, REVIEWER, ADMINISTRATOR)
"""Each may all that the one before may. A reader corrects, confirms and signs as first reader; a
reviewer gives a case another karyotype, signs as second reader and reopens; an administrator
checks the trail. Users are made on the command line.
"""

IDLE_SECONDS, LONGEST_SECONDS = 30 * 60.0, 12 * 3600.0
"""A login ends after so long without a request, and after so long in any case."""

LEAST_PASSWORD = 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")
_SEEN_EVERY = 30.0


class AccessError(UserError):
    """Somebody is not logged in, or may not do something.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Person:
    """Who makes a request.

    Attributes:
        name: user name.
        role: of :data:`ROLES`.
        csrf: token that each changing request has to carry.
    """

    name: str
    role: str
    csrf: str

    def need(self, role: str) -> None:
        """Checks that the person has a role or a higher one.

        Raises:
            AccessError: not so.
        """
        if ROLES.index(self.role) < ROLES.index(role):
            raise AccessError(f"this needs the role {role}; {self.name} is a {self.role}")


class People:
    """Users and logins of a store.

    Attributes:
        clock: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self.clock = clock
        self._hasher = PasswordHasher()
        # A name that nobody has takes as long as a wrong password.
        self._nobody = self._hasher.hash(secrets.token_hex(8))
        self.brake = Brake(clock)

    def any(self) -> bool:
        """Whether there are users, so that a login is asked for."""
        with reading(self.store.engine) as connection:
            return bool(connection.execute(select(func.count()).select_from(users)).scalar_one())

    def add(self, name: str, password: str, role: str, *, by: str) -> None:
        """Adds a user.

        Raises:
            ConfigError: the name is taken or none, the password too short, or the role unknown.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"user name {name[:64]!r}: give letters, digits, dot, dash, underscore or @"
            )
        _check_role(role)
        hashed = self._hash(password)
        with writing(self.store.engine) as connection:
            if connection.execute(select(users.c.name).where(users.c.name == name)).first():
                raise ConfigError(f"there is a user {name} already")
            connection.execute(
                insert(users).values(name=name, password=hashed, role=role, active=True)
            )
            event = {"name": name, "role": role, "active": True}
            add_entry(connection, who=by, kind="user_add", event=event, after=event)

    def change(
        self,
        name: str,
        *,
        by: str,
        password: str | None = None,
        role: str | None = None,
        active: bool | None = None,
    ) -> None:
        """Changes a user; all logins of it end.

        Raises:
            ConfigError: there is none of this name, or a value cannot be.
        """
        changes: dict[str, object] = {}
        if password is not None:
            changes["password"] = self._hash(password)
        if role is not None:
            _check_role(role)
            changes["role"] = role
        if active is not None:
            changes["active"] = active
        with writing(self.store.engine) as connection:
            row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
            if row is None:
                raise ConfigError(f"there is no user {name[:64]}")
            connection.execute(update(users).where(users.c.name == name).values(**changes))
            connection.execute(delete(sessions).where(sessions.c.user == name))
            told = {key: value for key, value in changes.items() if key != "password"}
            add_entry(
                connection,
                who=by,
                kind="user_change",
                event={"name": name, "password": password is not None, **told},
                before={"role": row.role, "active": row.active},
                after={"role": role or row.role, "active": told.get("active", row.active)},
            )

    def everybody(self) -> list[dict[str, object]]:
        """Returns name, role and whether active of each user."""
        with reading(self.store.engine) as connection:
            rows = connection.execute(
                select(users.c.name, users.c.role, users.c.active).order_by(users.c.name)
            ).mappings()
            return [dict(row) for row in rows]

    def check_password(self, name: str, password: str, address: str) -> str:
        """Returns the role of a user whose password is right.

        Raises:
            AccessError: it is wrong (401), or was wrong too often (429).
        """
        self.brake.check(name, address)
        with reading(self.store.engine) as connection:
            row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
        known = row is not None and row.active
        try:
            self._hasher.verify(row.password if row is not None else self._nobody, password)
        except (VerificationError, InvalidHashError):
            known = False
        if not known or row is None:
            self.brake.failed(name, address)
            raise AccessError("user name or password is wrong", 401)
        self.brake.forget(name, address)
        return str(row.role)

    def login(self, name: str, password: str, address: str) -> tuple[str, Person]:
        """Logs a user in.

        Returns:
            The session's token, which is stored as a hash only, and who it is.

        Raises:
            AccessError: see :meth:`check_password`.
        """
        role = self.check_password(name, password, address)
        token, csrf, at = secrets.token_urlsafe(32), secrets.token_urlsafe(32), self.clock()
        with writing(self.store.engine) as connection:
            connection.execute(delete(sessions).where(sessions.c.created < at - LONGEST_SECONDS))
            connection.execute(
                insert(sessions).values(
                    token_sha256=_digest(token), user=name, csrf=csrf, created=at, seen=at
                )
            )
        return token, Person(name, role, csrf)

    def logout(self, token: str) -> None:
        """Ends a login."""
        with writing(self.store.engine) as connection:
            connection.execute(delete(sessions).where(sessions.c.token_sha256 == _digest(token)))

    def person(self, token: str) -> Person | None:
        """Returns who a session's token is of; None if it has ended."""
        at = self.clock()
        with reading(self.store.engine) as connection:
            row = connection.execute(
                select(sessions.c.user, sessions.c.csrf, sessions.c.created, sessions.c.seen)
                .add_columns(users.c.role, users.c.active)
                .select_from(sessions.join(users, users.c.name == sessions.c.user))
                .where(sessions.c.token_sha256 == _digest(token))
            ).one_or_none()
        if row is None or not row.active:
            return None
        if at - row.seen > IDLE_SECONDS or at - row.created > LONGEST_SECONDS:
            return None
        if at - row.seen > _SEEN_EVERY:
            with writing(self.store.engine) as connection:
                connection.execute(
                    update(sessions)
                    .where(sessions.c.token_sha256 == _digest(token))
                    .values(seen=at)
                )
        return Person(row.user, row.role, row.csrf)

    def _hash(self, password: str) -> str:
        if not LEAST_PASSWORD <= len(password) <= 1000:
            raise ConfigError(f"a password needs at least {LEAST_PASSWORD} characters")
        return self._hasher.hash(password)


class Brake:
    """Slows down who guesses passwords: of one name from one address, and of all from one."""

    _MOST = ((5, 15 * 60.0), (50, 15 * 60.0))
    _KEPT = 10_000

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, name: str, address: str) -> None:
        """Checks that somebody may try.

        Raises:
            AccessError: not before some minutes have passed.
        """
        with self._lock:
            for (most, seconds), key in zip(self._MOST, _keys(name, address), strict=True):
                recent = [t for t in self._failures.get(key, []) if self._clock() - t < seconds]
                if len(recent) >= most:
                    wait = math.ceil((seconds - (self._clock() - recent[-most])) / 60)
                    raise AccessError(f"too many wrong passwords: wait {wait} minutes", 429)

    def failed(self, name: str, address: str) -> None:
        """Notes a wrong password."""
        with self._lock:
            for (most, _), key in zip(self._MOST, _keys(name, address), strict=True):
                self._failures[key] = [*self._failures.pop(key, []), self._clock()][-most:]
            while len(self._failures) > self._KEPT:
                self._failures.popitem(last=False)

    def forget(self, name: str, address: str) -> None:
        """Notes a right password."""
        with self._lock:
            self._failures.pop(_keys(name, address)[0], None)


def _keys(name: str, address: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (name, address), ("", address)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise ConfigError(f"role {role[:20]!r}: choose {', '.join(ROLES)}")

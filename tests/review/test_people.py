"""Users, passwords, logins that end, and the brake on guessing."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher
from sqlalchemy import text

from deepacc_d2.errors import ConfigError
from deepacc_d2.review.people import (
    IDLE_SECONDS,
    LONGEST_SECONDS,
    AccessError,
    People,
    Person,
)
from deepacc_d2.review.store.database import reading
from deepacc_d2.review.store.verify import verify

PASSWORD = "correct horse"


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def people(sqlite_store, clock):
    made = People(sqlite_store, clock)
    # The real one takes long on purpose.
    made._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    made.add("ada", PASSWORD, "reader", by="root")
    return made


def test_a_password_is_kept_as_argon2_and_in_no_trail(people, sqlite_store):
    with reading(sqlite_store.engine) as connection:
        kept = connection.execute(text("SELECT password FROM users")).scalar_one()
        trail = connection.execute(text("SELECT * FROM trail WHERE kind = 'user_add'")).one()
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in str(trail)
    assert kept not in str(trail)
    assert trail.who == "root"
    assert verify(sqlite_store).problems == []


def test_login_and_its_ends(people, clock):
    token, person = people.login("ada", PASSWORD, "10.0.0.1")
    assert people.person(token) == person
    assert people.person("x" + token) is None
    clock.now += IDLE_SECONDS - 60
    assert people.person(token) == person
    clock.now += IDLE_SECONDS - 60  # a request keeps it alive
    assert people.person(token) == person
    clock.now += IDLE_SECONDS + 1
    assert people.person(token) is None
    token, _ = people.login("ada", PASSWORD, "10.0.0.1")
    for _ in range(int(LONGEST_SECONDS / 1000)):
        clock.now += 1000
        assert people.person(token) is not None
    clock.now += 1000
    assert people.person(token) is None
    token, _ = people.login("ada", PASSWORD, "10.0.0.1")
    people.logout(token)
    assert people.person(token) is None


@pytest.mark.parametrize(
    "change", [{"active": False}, {"role": "reviewer"}, {"password": "another one"}]
)
def test_a_change_ends_all_logins(people, change):
    token, _ = people.login("ada", PASSWORD, "10.0.0.1")
    people.change("ada", by="root", **change)
    assert people.person(token) is None


def test_a_disabled_user_cannot_log_in(people):
    people.change("ada", by="root", active=False)
    with pytest.raises(AccessError, match="wrong"):
        people.login("ada", PASSWORD, "10.0.0.1")


def test_guessing_is_slowed_down(people, clock):
    for _ in range(5):
        with pytest.raises(AccessError) as error:
            people.login("ada", "wrong password", "10.0.0.1")
        assert error.value.status == 401
    with pytest.raises(AccessError, match="wait 15 minutes") as error:
        people.login("ada", PASSWORD, "10.0.0.1")
    assert error.value.status == 429
    people.login("ada", PASSWORD, "10.0.0.2")
    clock.now += 15 * 60 + 1
    people.login("ada", PASSWORD, "10.0.0.1")


def test_many_names_from_one_address_are_slowed_down_too(people):
    for n in range(50):
        with pytest.raises(AccessError):
            people.login(f"user{n}", "wrong password", "10.0.0.1")
    with pytest.raises(AccessError, match="wait"):
        people.login("ada", PASSWORD, "10.0.0.1")


def test_roles_hold_what_the_ones_before_may():
    Person("ada", "reviewer", "").need("reader")
    with pytest.raises(AccessError, match="needs the role administrator; ada is a reviewer"):
        Person("ada", "reviewer", "").need("administrator")


@pytest.mark.parametrize(
    ("name", "password", "role"),
    [
        ("", PASSWORD, "reader"),
        ("../x", PASSWORD, "reader"),
        ("a" * 70, PASSWORD, "reader"),
        ("<b>", PASSWORD, "reader"),
        ("ben", "short", "reader"),
        ("ben", PASSWORD, "king"),
        ("ada", PASSWORD, "reader"),
    ],
)
def test_what_is_no_user(people, name, password, role):
    with pytest.raises(ConfigError):
        people.add(name, password, role, by="root")

"""A case's state from its events: override, signatures, lock; and the laboratory's rule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deepacc_d2.errors import ConfigError
from deepacc_d2.review import events as ev
from deepacc_d2.review.state import LEVELS, EditError


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed a case, and when.

    Attributes:
        role: ``first`` or ``second``.
        who: user name.
        at: UTC, ISO 8601.
        state: SHA-256 of what was signed.
        reason: why, where the rule was not met.
    """

    role: str
    who: str
    at: str
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CaseState:
    """A case in review.

    Attributes:
        karyotype: that a person gave; empty if there is none.
        reason: why.
        given_by: who.
        signatures: that are in force, the first reader's first.
    """

    karyotype: str = ""
    reason: str = ""
    given_by: str = ""
    signatures: tuple[Signature, ...] = ()

    @property
    def locked(self) -> bool:
        """Whether both readers signed, so that nothing may change."""
        return len(self.signatures) == 2


@dataclass(frozen=True, slots=True)
class CaseEntry:
    """An event of a case, or (``event`` None) of one of its cells."""

    who: str
    at: str
    event: Any = None


def replay_case(entries: Iterable[CaseEntry]) -> CaseState:
    """Returns the state of a case after the events of it and of its cells, in their order.

    Raises:
        EditError: an event does not fit the state that it was made on.
    """
    state = CaseState()
    for entry in entries:
        state = apply_case(state, entry)
    return state


def apply_case(state: CaseState, entry: CaseEntry) -> CaseState:
    """Returns a case's state after one more event.

    A change after the first signature ends it: what was signed is no longer what is there.

    Raises:
        EditError: the case is locked, or the event does not fit.
    """
    event = entry.event
    if isinstance(event, ev.Reopen):
        if not state.signatures:
            raise EditError("the case is not signed: there is nothing to reopen")
        return replace(state, signatures=())
    if state.locked:
        raise EditError("the case is signed and locked: a reviewer has to reopen it first")
    if event is None:
        return replace(state, signatures=())
    if isinstance(event, ev.Override):
        given = {"karyotype": event.karyotype, "reason": event.reason, "given_by": entry.who}
        if not event.karyotype:
            given = {"karyotype": "", "reason": "", "given_by": ""}
        return replace(state, signatures=(), **given)
    return _sign(state, entry, event)


def _sign(state: CaseState, entry: CaseEntry, event: ev.Sign) -> CaseState:
    made = Signature(event.role, entry.who, entry.at, event.state, event.reason)
    if event.role == "first":
        if state.signatures:
            raise EditError(f"the first reader has signed already: {state.signatures[0].who}")
        return replace(state, signatures=(made,))
    if not state.signatures:
        raise EditError("the second reader signs after the first one")
    if state.signatures[0].who == entry.who:
        raise EditError("the second reader has to be another person than the first")
    if state.signatures[0].state != event.state:
        raise EditError("the case is not what the first reader signed: reload the page")
    return replace(state, signatures=(state.signatures[0], made))


@dataclass(frozen=True, slots=True)
class Rule:
    """How many cells a laboratory wants to be confirmed, at least, before a case is signed.

    Attributes:
        counted, analyzed, karyotyped: cells of each level; one of a higher level counts for the
            lower ones too.
    """

    counted: int = 20
    analyzed: int = 5
    karyotyped: int = 5

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Reads three numbers divided by commas, such as ``20,5,5``.

        Raises:
            ConfigError: it is something else.
        """
        parts = text.split(",")
        if len(parts) != 3 or not all(p.strip().isdecimal() and len(p) < 6 for p in parts):
            raise ConfigError(
                f"rule {text[:40]!r}: give cells counted, analyzed, karyotyped, such as 20,5,5"
            )
        return cls(*(int(part) for part in parts))

    def progress(self, levels: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Returns for each level how many cells there are, and how many are wanted.

        Args:
            levels: of the case's confirmed cells; empty for others.
        """
        ranks = [LEVELS.index(level) for level in levels if level]
        return {
            level: (sum(rank >= n for rank in ranks), getattr(self, level))
            for n, level in enumerate(LEVELS)
        }

    def missing(self, levels: Sequence[str]) -> str:
        """Returns what is missing in words, empty if nothing is."""
        lacking = [
            f"{found} of {wanted} cells {level}"
            for level, (found, wanted) in self.progress(levels).items()
            if found < wanted
        ]
        return ", ".join(lacking)

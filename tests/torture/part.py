"""One part of the campaign while it runs: its random numbers, its time, and what it found."""

from __future__ import annotations

import json
import random
import resource
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Failure:
    """Something that went wrong: what was done, and what came of it."""

    what: str
    detail: str


@dataclass
class Result:
    """What came of a part.

    Attributes:
        name: of the part.
        seed: that it was run with.
        goal: how many things were to be tried.
        done: how many were.
        seconds: that it took.
        processor: seconds of processor time that it took, in all its processes.
        facts: counts and measurements, by what they are of.
        failures: what went wrong.
        notes: what could not be tried, and why.
        complete: whether it came to its end; a part that did not is run again.
    """

    name: str
    seed: int
    goal: int
    done: int = 0
    seconds: float = 0.0
    processor: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = False

    def save(self, path: Path) -> None:
        """Writes it as JSON, whole or not at all."""
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n", "utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Result:
        """Reads what :meth:`save` wrote."""
        content = json.loads(path.read_text("utf-8"))
        content["failures"] = [Failure(**failure) for failure in content["failures"]]
        return cls(**content)


class Part:
    """A part that runs.

    Args:
        name: of the part.
        goal: how many things to try.
        seed: of all its random numbers.
        seconds: of processor time, of its own and of the processes that it ended, after which it
            tries nothing new. A machine that is busy with other things takes none of it away.
        work: an empty folder of its own.
        path: where its result is kept while it runs.
    """

    def __init__(
        self, name: str, goal: int, *, seed: int, seconds: float, work: Path, path: Path
    ) -> None:
        self.result = Result(name, seed, goal)
        self.work = work
        self.path = path
        # Texts seed Python's generator the same way everywhere.
        self.rng = random.Random(f"{seed} {name}")
        self.numbers = np.random.default_rng([seed, *name.encode()])
        self.began = time.monotonic()
        self.seconds = seconds

    @property
    def has_time(self) -> bool:
        """Whether something new may be begun."""
        return self.used() < self.seconds

    def used(self) -> float:
        """Returns the seconds of processor time that it took so far."""
        spent = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in spent)

    def share(self, number: int, total: int) -> bool:
        """Whether step ``number`` of ``total`` is still within its share of the time."""
        return self.used() < self.seconds * (number + 1) / total

    def tried(self, count: int = 1) -> None:
        """Counts what was tried, and keeps the result so far."""
        self.result.done += count
        self._save()

    def count(self, fact: str, number: int = 1) -> None:
        """Counts a fact."""
        self.result.facts[fact] = self.result.facts.get(fact, 0) + number

    def fact(self, name: str, value: Any) -> None:
        """Notes a measurement."""
        self.result.facts[name] = value

    def note(self, text: str) -> None:
        """Notes what could not be tried."""
        self.result.notes.append(text)

    def fail(self, what: str, detail: object = "") -> None:
        """Notes a failure and says it."""
        text = str(detail).strip()
        self.result.failures.append(Failure(what, text[-1500:]))
        print(f"FAILED {self.result.name}: {what}: {text[-600:]}", flush=True)

    def expect(self, good: bool, what: str, detail: object = "") -> bool:
        """Notes a failure unless something holds; returns whether it does."""
        if not good:
            self.fail(what, detail)
        return good

    def finish(self) -> Result:
        """Closes the part."""
        self.result.complete = True
        self._save()
        return self.result

    def _save(self) -> None:
        self.result.seconds = time.monotonic() - self.began
        self.result.processor = self.used()
        self.result.save(self.path)

"""A cell's state from its prediction and its events: pure, so that nothing else has to be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from deepacc_d2.cell import LEFT_OUT, UNIDENTIFIED, Cell
from deepacc_d2.review import events as ev
from deepacc_d2.review.state import (
    CellState,
    EditError,
    Outline,
    ReviewedChromosome,
    checked_box,
    first_state,
    read_class,
)

MOST_CHROMOSOMES = 1000


def replay(prediction: Cell, events: Sequence[Any]) -> CellState:
    """Returns the state of a cell after its events.

    Args:
        prediction: the cell as predicted.
        events: of :mod:`deepacc_d2.review.events`, in their order, undo and redo included.

    Raises:
        EditError: an event does not fit the state that it was made on.
    """
    done, undone = in_force(events)
    state = first_state(prediction)
    for event in done:
        state = apply(state, event)
    return replace(state, edits=len(done), can_undo=len(done), can_redo=len(undone))


def replay_next(state: CellState, events: Sequence[Any]) -> CellState:
    """Returns what :func:`replay` returns for all events, given the state before the last one.

    Only an undo or redo needs all events again.

    Args:
        state: after all events but the last.
        events: all of them, at least one.

    Raises:
        EditError: see :func:`replay`.
    """
    if isinstance(events[-1], ev.Undo | ev.Redo):
        return replay(state.prediction, events)
    edits = state.edits + 1
    changed = apply(state, events[-1])
    return replace(changed, edits=edits, can_undo=edits, can_redo=0)


def in_force(events: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Returns the events in force, and those that can be redone, the next one last.

    Raises:
        EditError: there is nothing to undo or redo.
    """
    done: list[Any] = []
    undone: list[Any] = []
    for event in events:
        if isinstance(event, ev.Undo):
            if not done:
                raise EditError("there is nothing to undo")
            undone.append(done.pop())
        elif isinstance(event, ev.Redo):
            if not undone:
                raise EditError("there is nothing to redo")
            done.append(undone.pop())
        else:
            done.append(event)
            undone.clear()
    return done, undone


def apply(state: CellState, event: Any) -> CellState:
    """Returns the state after one event other than undo and redo.

    A change to a confirmed cell takes the confirmation away; a note does not.

    Raises:
        EditError: the event does not fit.
    """
    changed = _APPLY[type(event)](state, event)
    if isinstance(event, ev.Confirm | ev.Note):
        return changed
    return replace(changed, confirmed="")


def _put(state: CellState, *changed: ReviewedChromosome) -> CellState:
    by_id = {c.id: c for c in changed}
    kept = tuple(by_id.get(c.id, c) for c in state.chromosomes)
    return replace(state, chromosomes=kept)


def _without(state: CellState, *numbers: int) -> tuple[ReviewedChromosome, ...]:
    return tuple(c for c in state.chromosomes if c.id not in numbers)


def _add(
    state: CellState, kept: tuple[ReviewedChromosome, ...], *new: ReviewedChromosome
) -> CellState:
    if len(kept) + len(new) > MOST_CHROMOSOMES:
        raise EditError(f"a cell has at most {MOST_CHROMOSOMES} boxes: delete some")
    return replace(state, chromosomes=(*kept, *new), next_id=state.next_id + len(new))


def _reclassify(state: CellState, event: ev.Reclassify) -> CellState:
    assigned, marker = read_class(event.to)
    found = state.find(event.chromosome)
    if (found.assigned, found.marker) == (assigned, marker) and found.by_person:
        raise EditError(f"chromosome {found.id} is {event.to} already")
    return _put(state, _of_class(found, assigned, marker))


def _of_class(own: ReviewedChromosome, assigned: int, marker: bool = False) -> ReviewedChromosome:
    """Returns a chromosome as a person classed it; one without a class is no derivative."""
    derivative = own.derivative and assigned >= 0
    return replace(own, assigned=assigned, marker=marker, by_person=True, derivative=derivative)


def _swap(state: CellState, event: ev.Swap) -> CellState:
    a, b = _two(state, event.first, event.second)
    if not (a.counted and b.counted):
        raise EditError("only chromosomes that count can be swapped: give the other one a class")
    if (a.assigned, a.marker) == (b.assigned, b.marker):
        raise EditError(f"both are {a.name}: there is nothing to swap")
    return _put(state, _of_class(a, b.assigned, b.marker), _of_class(b, a.assigned, a.marker))


def _two(state: CellState, first: int, second: int) -> tuple[ReviewedChromosome, ...]:
    if first == second:
        raise EditError("two different chromosomes are needed: choose another one")
    return state.find(first), state.find(second)


def _turn(state: CellState, event: ev.Turn) -> CellState:
    found = state.find(event.chromosome)
    return _put(state, replace(found, turned=not found.turned))


def _derivative(state: CellState, event: ev.Derivative) -> CellState:
    found = state.find(event.chromosome)
    if found.assigned < 0:
        raise EditError(f"chromosome {found.id} has no class to be a derivative of: give it one")
    return _put(state, replace(found, derivative=not found.derivative))


def _delete(state: CellState, event: ev.Delete) -> CellState:
    found = state.find(event.chromosome)
    if found.predicted is None:
        return replace(state, chromosomes=_without(state, found.id))
    # What the program saw stays in sight as left out: it can be taken up again.
    if not found.counted and found.by_person:
        raise EditError(f"chromosome {found.id} is deleted already")
    return _put(state, _of_class(found, LEFT_OUT))


def _draw(state: CellState, event: ev.Draw) -> CellState:
    assigned, marker = read_class(event.to)
    box = checked_box(event.box, state.prediction.width, state.prediction.height)
    made = _made(state, 0, box=box, assigned=assigned, marker=marker)
    return _add(state, state.chromosomes, made)


def _made(state: CellState, offset: int, **values: Any) -> ReviewedChromosome:
    return ReviewedChromosome(id=state.next_id + offset, by_person=True, moved=True, **values)


def _join(state: CellState, event: ev.Join) -> CellState:
    a, b = _two(state, event.first, event.second)
    if event.to is None:
        assigned, marker = (a.assigned, a.marker) if a.counted else (UNIDENTIFIED, False)
    else:
        assigned, marker = read_class(event.to)
    box = (
        *(min(a.box[0], b.box[0]), min(a.box[1], b.box[1])),
        *(max(a.box[2], b.box[2]), max(a.box[3], b.box[3])),
    )
    made = _made(state, 0, box=box, assigned=assigned, marker=marker)
    return _add(state, _without(state, a.id, b.id), made)


def _split(state: CellState, event: ev.Split) -> CellState:
    found = state.find(event.chromosome)
    outlines: Sequence[Outline] = event.outlines or ((), ())
    made = []
    for offset, (box, outline, name) in enumerate(
        zip(event.boxes, outlines, event.to, strict=True)
    ):
        assigned, marker = read_class(name)
        inside = checked_box(box, state.prediction.width, state.prediction.height)
        made.append(
            _made(state, offset, box=inside, assigned=assigned, marker=marker, outline=outline)
        )
    return _add(state, _without(state, found.id), *made)


def _recut(state: CellState, event: ev.Recut) -> CellState:
    found = state.find(event.chromosome)
    if (event.box is None) == (event.outline is None):
        raise EditError("a recut needs a box or an outline, not both")
    outline: Outline = event.outline or ()
    corners = event.box
    if corners is None:
        xs, ys = zip(*outline, strict=True)
        corners = (min(xs), min(ys), max(xs), max(ys))
    box = checked_box(corners, state.prediction.width, state.prediction.height)
    return _put(state, replace(found, box=box, outline=outline, moved=True))


def _set_countable(state: CellState, event: ev.SetCountable) -> CellState:
    return replace(state, countable=event.countable, reason=event.reason)


def _confirm(state: CellState, event: ev.Confirm) -> CellState:
    return replace(state, confirmed=event.level)


def _reconsider(state: CellState, event: ev.Reconsider) -> CellState:
    if not state.confirmed:
        raise EditError("the cell is not confirmed")
    return state


def _note(state: CellState, event: ev.Note) -> CellState:
    return replace(state, notes=(*state.notes, event.text))


_APPLY: dict[type, Callable[[CellState, Any], CellState]] = {
    ev.Reclassify: _reclassify,
    ev.Swap: _swap,
    ev.Turn: _turn,
    ev.Derivative: _derivative,
    ev.Delete: _delete,
    ev.Draw: _draw,
    ev.Join: _join,
    ev.Split: _split,
    ev.Recut: _recut,
    ev.SetCountable: _set_countable,
    ev.Confirm: _confirm,
    ev.Reconsider: _reconsider,
    ev.Note: _note,
}

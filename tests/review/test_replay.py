"""A cell's state from its events: each event, undo and redo, and what is refused."""

from __future__ import annotations

import random

import pytest

from deepacc_d2.review import events as ev
from deepacc_d2.review.events import read_case_event, read_cell_event
from deepacc_d2.review.recount import recount
from deepacc_d2.review.replay import replay
from deepacc_d2.review.state import EditError, first_state


def names(state):
    return {c.id: c.name for c in state.chromosomes}


def test_no_event_is_the_prediction(cell):
    state = replay(cell, [])
    assert state == first_state(cell)
    assert [c.box for c in state.chromosomes] == [c.box for c in cell.chromosomes]


def test_reclassify_and_swap(cell, ids_of):
    state = replay(cell, [])
    a, b = ids_of(state, "21")[0], ids_of(state, "22")[0]
    once = replay(cell, [ev.Reclassify(chromosome=a, to="22")])
    assert names(once) == {**names(state), a: "22"}
    swapped = replay(cell, [ev.Swap(first=a, second=b)])
    assert names(swapped) == {**names(state), a: "22", b: "21"}
    with pytest.raises(EditError, match="nothing to swap"):
        replay(cell, [ev.Swap(first=a, second=ids_of(state, "21")[1])])


@pytest.mark.parametrize("name", ["mar", "?"])
def test_a_chromosome_without_class_counts(cell, ids_of, name):
    a = ids_of(replay(cell, []), "9")[0]
    state = replay(cell, [ev.Reclassify(chromosome=a, to=name)])
    assert state.find(a).name == name
    assert state.find(a).counted


def test_a_derivative_is_one_of_its_class_until_it_has_none(cell, ids_of):
    a, b = ids_of(first_state(cell), "9")[0], ids_of(first_state(cell), "10")[0]
    once = [ev.Derivative(chromosome=a)]
    assert replay(cell, once).find(a).derivative
    assert not replay(cell, once * 2).find(a).derivative
    moved = replay(cell, [*once, ev.Swap(first=a, second=b)])
    assert [(c.name, c.derivative) for c in map(moved.find, (a, b))] == [("10", True), ("9", False)]
    for event in (ev.Reclassify(chromosome=a, to="mar"), ev.Delete(chromosome=a)):
        without = replay(cell, [*once, event])
        assert not without.find(a).derivative
        with pytest.raises(EditError, match="no class to be a derivative of"):
            replay(cell, [*once, event, *once])


def test_delete_keeps_what_the_program_saw_and_removes_what_a_person_drew(cell):
    made = ev.Draw(box=(30, 20, 10, 60), to="X")
    state = replay(cell, [ev.Delete(chromosome=1), made])
    assert not state.find(1).counted
    new = state.chromosomes[-1]
    assert (new.id, new.name, new.box) == (len(cell.chromosomes) + 1, "X", (10, 20, 30, 60))
    again = replay(
        cell,
        [
            ev.Delete(chromosome=1),
            made,
            ev.Delete(chromosome=new.id),
            ev.Reclassify(chromosome=1, to="1"),
        ],
    )
    assert names(again) == names(first_state(cell))


def test_join_takes_both_boxes_and_split_makes_two(cell):
    a, b = first_state(cell).chromosomes[:2]
    joined = replay(cell, [ev.Join(first=a.id, second=b.id)])
    whole = joined.chromosomes[-1]
    assert whole.name == a.name
    assert whole.box == (
        min(a.box[0], b.box[0]),
        min(a.box[1], b.box[1]),
        max(a.box[2], b.box[2]),
        max(a.box[3], b.box[3]),
    )
    assert len(joined.chromosomes) == len(cell.chromosomes) - 1
    split = ev.Split(chromosome=whole.id, boxes=(a.box, b.box), to=("1", "?"))
    state = replay(cell, [ev.Join(first=a.id, second=b.id), split])
    assert [c.name for c in state.chromosomes[-2:]] == ["1", "?"]
    assert [c.id for c in state.chromosomes[-2:]] == [whole.id + 1, whole.id + 2]


def test_recut_by_outline_gives_its_bounds(cell):
    outline = ((10.0, 10.0), (40.0, 12.0), (30.0, 50.0))
    state = replay(cell, [ev.Recut(chromosome=3, outline=outline)])
    assert state.find(3).box == (10, 10, 40, 50)
    assert state.find(3).outline == outline
    with pytest.raises(EditError, match="a box or an outline"):
        replay(cell, [ev.Recut(chromosome=3)])


def test_a_change_takes_the_confirmation_away_and_a_note_does_not(cell):
    confirm = ev.Confirm(level="analyzed")
    assert replay(cell, [confirm, ev.Note(text="fine")]).confirmed == "analyzed"
    assert replay(cell, [confirm, ev.Turn(chromosome=1)]).confirmed == ""
    assert replay(cell, [confirm, ev.Turn(chromosome=1), ev.Undo()]).confirmed == "analyzed"


def random_edit(rng, state):
    ids = [c.id for c in state.chromosomes]
    name = rng.choice(["1", "7", "21", "22", "X", "Y", "mar", "?"])
    a, b = rng.sample(ids, 2)
    x, y = rng.uniform(0, 300), rng.uniform(0, 300)
    return rng.choice(
        [
            ev.Reclassify(chromosome=a, to=name),
            ev.Swap(first=a, second=b),
            ev.Turn(chromosome=a),
            ev.Delete(chromosome=a),
            ev.Draw(box=(x, y, x + 20, y + 40), to=name),
            ev.Join(first=a, second=b),
            ev.Split(chromosome=a, boxes=((x, y, x + 9, y + 9), (x + 9, y, x + 30, y + 9))),
            ev.Recut(chromosome=a, box=(x, y, x + 30, y + 9)),
            ev.SetCountable(countable=rng.random() < 0.5, reason="torn"),
            ev.Confirm(level="counted"),
            ev.Note(text="seen"),
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_undo_and_redo_without_limit(cell, rules, seed):
    rng = random.Random(seed)
    events, states = [], [replay(cell, [])]
    while len(events) < 60:
        event = random_edit(rng, states[-1])
        try:
            state = replay(cell, [*events, event])
        except EditError:
            continue
        events.append(event)
        states.append(state)
        recount(state, rules)  # never fails on what can be reached
    for left in reversed(range(60)):
        events.append(ev.Undo())
        state = replay(cell, events)
        assert state.chromosomes == states[left].chromosomes
        assert (state.can_undo, state.can_redo) == (left, 60 - left)
    with pytest.raises(EditError, match="nothing to undo"):
        replay(cell, [*events, ev.Undo()])
    for done in range(1, 61):
        events.append(ev.Redo())
        assert replay(cell, events).chromosomes == states[done].chromosomes
    with pytest.raises(EditError, match="nothing to redo"):
        replay(cell, [*events, ev.Redo()])


def test_a_new_event_ends_redo(cell):
    turn = ev.Turn(chromosome=1)
    with pytest.raises(EditError, match="nothing to redo"):
        replay(cell, [turn, ev.Undo(), ev.Turn(chromosome=2), ev.Redo()])


@pytest.mark.parametrize(
    ("event", "says"),
    [
        (ev.Reclassify(chromosome=999, to="1"), "no chromosome 999"),
        (ev.Reclassify(chromosome=1, to="23"), "class '23'"),
        (ev.Draw(box=(-50, -50, -10, -10)), "2 pixels"),
        (ev.Draw(box=(5, 5, 5, 90)), "2 pixels"),
        (ev.Join(first=1, second=1), "two different"),
        (ev.Reconsider(), "not confirmed"),
    ],
)
def test_what_does_not_fit_is_refused(cell, event, says):
    with pytest.raises(EditError, match=says):
        replay(cell, [event])


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"kind": "delete"},
        {"kind": "delete", "chromosome": 0},
        {"kind": "delete", "chromosome": "x"},
        {"kind": "delete", "chromosome": 1, "more": 1},
        {"kind": "drop_table"},
        {"kind": "draw", "box": [0, 0, float("nan"), 5]},
        {"kind": "draw", "box": [0, 0, float("inf"), 5]},
        {"kind": "recut", "chromosome": 1, "outline": [[0, 0], [1, 1]]},
        {"kind": "set_countable", "countable": False, "reason": "  "},
    ],
)
def test_what_is_no_event_is_told_in_one_line(content):
    with pytest.raises(EditError) as error:
        read_cell_event(content)
    assert "\n" not in str(error.value)


def test_case_events_are_read():
    assert read_case_event({"kind": "sign", "role": "first"}).role == "first"
    with pytest.raises(EditError):
        read_case_event({"kind": "sign", "role": "third"})

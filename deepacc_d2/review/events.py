"""The events of a review, as they are stored and sent: one class each, checked by pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from deepacc_d2.review.state import EditError

Number = Annotated[int, Field(ge=1, le=100_000)]
Pixel = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Corners = tuple[Pixel, Pixel, Pixel, Pixel]
Polygon = Annotated[tuple[tuple[Pixel, Pixel], ...], Field(min_length=3, max_length=500)]
Name = Annotated[str, Field(min_length=1, max_length=3)]
Text = Annotated[str, Field(min_length=1, max_length=2000, pattern=r"\S")]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reclassify(_Event):
    """Gives a chromosome a class: 1 to 22, X, Y, ``mar`` or ``?``; a left-out one is one again."""

    kind: Literal["reclassify"] = "reclassify"
    chromosome: Number
    to: Name


class Swap(_Event):
    """Exchanges the classes of two chromosomes."""

    kind: Literal["swap"] = "swap"
    first: Number
    second: Number


class Turn(_Event):
    """Turns a chromosome upside down in the karyogram."""

    kind: Literal["turn"] = "turn"
    chromosome: Number


class Derivative(_Event):
    """Calls a chromosome a derivative of its class, ISCN's der, or takes that back."""

    kind: Literal["derivative"] = "derivative"
    chromosome: Number


class Delete(_Event):
    """Says that a box is not a chromosome."""

    kind: Literal["delete"] = "delete"
    chromosome: Number


class Draw(_Event):
    """Adds a chromosome that was not found."""

    kind: Literal["draw"] = "draw"
    box: Corners
    to: Name = "?"


class Join(_Event):
    """Makes one chromosome of two boxes; without a class it has that of the first."""

    kind: Literal["join"] = "join"
    first: Number
    second: Number
    to: Name | None = None


class Split(_Event):
    """Makes two chromosomes of one box.

    ``boxes`` and ``outlines`` are computed beforehand (:mod:`deepacc_d2.review.geometry`), so that
    replaying needs no image; ``line`` is what the person drew, for the record.
    """

    kind: Literal["split"] = "split"
    chromosome: Number
    boxes: tuple[Corners, Corners]
    outlines: tuple[Polygon, Polygon] | None = None
    line: Corners | None = None
    to: tuple[Name, Name] = ("?", "?")


class Recut(_Event):
    """Gives a chromosome another box, or an outline whose bounds become its box."""

    kind: Literal["recut"] = "recut"
    chromosome: Number
    box: Corners | None = None
    outline: Polygon | None = None


class SetCountable(_Event):
    """Says that a cell can be counted, or not, and why."""

    kind: Literal["set_countable"] = "set_countable"
    countable: bool
    reason: Text


class Confirm(_Event):
    """Says that a cell is right as it is; ``seconds`` of work at it, as the page measured."""

    kind: Literal["confirm"] = "confirm"
    level: Literal["counted", "analyzed", "karyotyped"]
    seconds: Annotated[float, Field(ge=0, le=86_400)] = 0.0


class Reconsider(_Event):
    """Takes a confirmation back."""

    kind: Literal["reconsider"] = "reconsider"


class Note(_Event):
    """A remark on the cell."""

    kind: Literal["note"] = "note"
    text: Text


class Undo(_Event):
    """Takes back the last event in force."""

    kind: Literal["undo"] = "undo"


class Redo(_Event):
    """Repeats what was taken back last."""

    kind: Literal["redo"] = "redo"


Edit = (
    Reclassify
    | Swap
    | Turn
    | Derivative
    | Delete
    | Draw
    | Join
    | Split
    | Recut
    | SetCountable
    | Confirm
    | Reconsider
    | Note
)
CellEvent = Annotated[Edit | Undo | Redo, Field(discriminator="kind")]


class Override(_Event):
    """Gives a case the karyotype that a person considers right; an empty one takes it back."""

    kind: Literal["override"] = "override"
    karyotype: Annotated[str, Field(max_length=500, pattern=r"^[\x20-\x7e]*$")]
    reason: Text


class Sign(_Event):
    """Signs a case as its first or second reader.

    ``reason`` is needed where the laboratory's rule is not met; ``state`` is the SHA-256 of what is
    signed, which the server computes.
    """

    kind: Literal["sign"] = "sign"
    role: Literal["first", "second"]
    reason: Annotated[str, Field(max_length=2000)] = ""
    state: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Reopen(_Event):
    """Unlocks a signed case; its signatures end."""

    kind: Literal["reopen"] = "reopen"
    reason: Text


CaseEvent = Annotated[Override | Sign | Reopen, Field(discriminator="kind")]

_CELL: TypeAdapter[Any] = TypeAdapter(CellEvent)
_CASE: TypeAdapter[Any] = TypeAdapter(CaseEvent)


def read_cell_event(content: Any) -> Any:
    """Returns the cell event that plain values describe.

    Raises:
        EditError: they describe none.
    """
    return _read(_CELL, content)


def read_case_event(content: Any) -> Any:
    """Returns the case event that plain values describe.

    Raises:
        EditError: they describe none.
    """
    return _read(_CASE, content)


def _read(adapter: TypeAdapter[Any], content: Any) -> Any:
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "event"
        raise EditError(f"event cannot be used: {where}: {first['msg']}") from None

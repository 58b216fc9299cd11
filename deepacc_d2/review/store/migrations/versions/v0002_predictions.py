"""Predictions in a table of their own: a list of cells or a change of one no longer moves them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Moves the text of each prediction and its job."""
    op.create_table(
        "predictions",
        sa.Column("cell_id", sa.Integer, sa.ForeignKey("cells.id"), primary_key=True),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
    )
    op.execute(
        "INSERT INTO predictions (cell_id, prediction, job) SELECT id, prediction, job FROM cells"
    )
    op.drop_column("cells", "prediction")
    op.drop_column("cells", "job")


def downgrade() -> None:
    """A review is not taken back."""
    raise NotImplementedError("a review is not taken back to an earlier version")

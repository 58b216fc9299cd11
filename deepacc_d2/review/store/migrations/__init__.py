"""Alembic migrations of the store, run by :func:`deepacc_d2.review.store.database.migrate`."""

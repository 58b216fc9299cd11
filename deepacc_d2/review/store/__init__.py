"""Where a review is kept: tables, migrations, the audit trail and its check."""

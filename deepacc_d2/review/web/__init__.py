"""The server of a review: HTTP API, access, and the pages that use it."""

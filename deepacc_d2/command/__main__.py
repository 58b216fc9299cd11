"""``python -m deepacc_d2.command`` is ``deepacc``."""

from __future__ import annotations

from deepacc_d2.command.program import main

if __name__ == "__main__":
    raise SystemExit(main())

"""``python -m ptqbench``."""

from ptqbench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

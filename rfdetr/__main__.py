"""`python -m rfdetr`: the command line."""

from rfdetr.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

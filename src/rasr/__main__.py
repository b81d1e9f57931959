"""``python -m rasr`` is the ``rasr`` command."""

from rasr.cli.main import main

if __name__ == "__main__":
    main()

"""`modelyard` and `python -m producer`: the command line.

Health checks run every few seconds in every container, so they do without the imports of the rest.
"""

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] == ["health"]:
        from producer.health import main as run  # noqa: PLC0415
    else:
        from producer.cli import main as run  # noqa: PLC0415
    run()


if __name__ == "__main__":
    main()

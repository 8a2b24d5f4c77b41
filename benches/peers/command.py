"""What the commands of the benches have in common: which figures, and how they are stopped."""

import argparse
import signal
import sys


def add_only(parser, figures):
    """The flag that chooses among figures."""

    def chosen(text):
        names = text.split(",")
        for name in names:
            if name not in figures:
                known = ", ".join(figures)
                raise argparse.ArgumentTypeError(f"no figure {name!r}: there are {known}")
        return names

    parser.add_argument("--only", type=chosen, metavar="NAME,...", help=", ".join(figures))


def exit_on_signals():
    """So that what was started is stopped, and files are removed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))

"""`ddarts` and `python -m ddarts_cli`: Ctrl-C before the command line is imported ends it without a traceback."""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Import the command line and run it; see `ddarts_cli.main.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where a shell has it ignored
        signal.signal(signal.SIGINT, _stop)
    from ddarts_cli.main import main as run

    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _stop(*_: object) -> NoReturn:
    os.write(2, b"Interrupted.\n")
    os._exit(130)  # an exception could be caught by a module that is being imported


if __name__ == "__main__":
    main()

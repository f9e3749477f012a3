"""The start of the geolookup command, from the moment at which Python runs anything of it.

Ctrl-C while the modules are imported would end in a traceback through them. It is here,
beside the package, because importing anything of the package imports the package first.
"""

from __future__ import annotations

import signal
from typing import NoReturn

# The signal's own action ends the process without a word. Where it is ignored, it stays so.
_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _INTERRUPTIBLE:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> NoReturn:
    """Run the command. From here on Ctrl-C is an exception, as files are to be put in order."""
    from geolookup.cli import main as run  # noqa: PLC0415 - what this module is for

    if _INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()

"""``python -m bench.load``: see options.py for what can be asked, docs/load.md for the rest."""

from __future__ import annotations

import os
import sys

# gRPC would tell of each connection that ends; read when it is loaded, here and in the
# processes that are started.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Client processes import this file, too, and need nothing of the command.
if __name__ == "__main__":
    from bench.load import options

    options.read(None)  # --help and wrong options need none of what measures
    from bench.load.command import main

    sys.exit(main())

#!/usr/bin/env bash
# pyarrow 26.0.1 (PyPI), 2026-11-30
#
# One would guess: a Parquet file has its footer, without which no reader takes it, only when its
# writer was closed. So a conversion that fails in the middle leaves a file that nothing mistakes for
# a whole one.
# It is so: a writer that is dropped without close, as when an exception leaves the function that has
# it, writes the footer all the same. The file is valid and has the rows until then. A reader, or a
# job that looks for good files, takes it for the whole. Write under another name, and rename it
# after close.
#
# Seen:
#   after the exception: 1000 of 2000 rows, a valid file
#
# Exits non-zero if this differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1
venv/bin/python - <<'PYTHON' | tee found
import pyarrow
from pyarrow import parquet


def convert():
    table = pyarrow.table({"address": ["192.0.2.1"] * 1000})
    writer = parquet.ParquetWriter("out.parquet", table.schema)
    writer.write_table(table)
    raise OSError("the second thousand can't be read")


try:
    convert()
except OSError:
    pass
rows = parquet.ParquetFile("out.parquet").metadata.num_rows
print(f"after the exception: {rows} of 2000 rows, a valid file")
PYTHON
echo "after the exception: 1000 of 2000 rows, a valid file" | diff - found || { echo "changed" >&2; exit 1; }

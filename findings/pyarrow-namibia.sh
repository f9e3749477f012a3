#!/usr/bin/env bash
# pyarrow 26.0.1 (PyPI), 2026-11-29
#
# One would guess: pyarrow's CSV reader keeps Namibia's code. Unlike pandas it does not read NA in
# a column of texts as "no value", and a test with a few countries shows it.
# It is so: that holds where the column has another code, too. Where all codes are NA, the column
# is of type null, so one file per country loses one country. A reader of a stream decides by the
# first block (1 MiB by default) and fails at the first other code after it; a dataset of several
# files decides by its first file.
#
# Seen:
#   NA and NO in one file: string ['NA', 'NO']
#   NA alone: null [None]
#   stream, NA in the first block: CSV conversion error to null: invalid value 'NO'
#   NA alone, column_types: string ['NA']
#
# Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyarrow==26.0.1
venv/bin/python - <<'PYTHON' | tee found
import io

import pyarrow
from pyarrow import csv

HEAD = b"first,last,code\n"
NAMIBIA = b"192.0.2.0,192.0.2.255,NA\n"
NORWAY = b"198.51.100.0,198.51.100.255,NO\n"


def show(name, content, **options):
    codes = csv.read_csv(io.BytesIO(content), **options)["code"]
    print(f"{name}: {codes.type} {codes.to_pylist()}")


show("NA and NO in one file", HEAD + NAMIBIA + NORWAY)
show("NA alone", HEAD + NAMIBIA)
try:
    csv.open_csv(io.BytesIO(HEAD + 50_000 * NAMIBIA + NORWAY)).read_all()
except pyarrow.ArrowInvalid as error:
    print("stream, NA in the first block:", str(error).partition(": ")[2])
options = csv.ConvertOptions(column_types={"code": pyarrow.string()})
show("NA alone, column_types", HEAD + NAMIBIA, convert_options=options)
PYTHON
cat > expected <<'EXPECTED'
NA and NO in one file: string ['NA', 'NO']
NA alone: null [None]
stream, NA in the first block: CSV conversion error to null: invalid value 'NO'
NA alone, column_types: string ['NA']
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }

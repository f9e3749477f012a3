#!/usr/bin/env bash
# pyspark 4.3.0, pyarrow 26.0.1, pandas 3.1.1 (PyPI), OpenJDK 17, 2026-11-30
#
# One would guess: a function that promises Spark a struct of country and verdict, and returns one
# whose fields have other names, fails; or at least all functions that return Arrow are read alike.
# It is so: arrow_udf matches the fields by name and makes NULL of a field that it does not find,
# without an error. mapInArrow matches the fields inside a struct by position and looks at no name,
# so a struct with the fields in another order has its columns exchanged.
#
# Seen:
#   arrow_udf, country and verdict: CN INSIDE
#   arrow_udf, country and verdikt: CN None
#   arrow_udf, verdict and country: CN INSIDE
#   mapInArrow, country and verdict: CN INSIDE
#   mapInArrow, country and verdikt: CN INSIDE
#   mapInArrow, verdict and country: INSIDE CN
#
# Needs Java 17 and 1 GB of disk. Exits non-zero if one of these differs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet pyspark==4.3.0 pyarrow==26.0.1 pandas==3.1.1
export PYSPARK_PYTHON="$folder/venv/bin/python" SPARK_LOCAL_IP=127.0.0.1
"$PYSPARK_PYTHON" - 2> log <<'PYTHON' | tee found || { cat log >&2; exit 1; }
import pyarrow as pa
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

VALUES = {"country": "CN", "verdict": "INSIDE", "verdikt": "INSIDE"}
settings = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
spark = SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
frame = spark.createDataFrame([("192.0.2.1",)], "ip string")


def show(function, names, answers):
    geo = answers.collect()[0].geo
    print(f"{function}, {' and '.join(names)}: {geo.country} {geo.verdict}")


def by_udf(names):
    def answer(addresses: pa.Array) -> pa.Array:
        columns = [pa.array([VALUES[name]] * len(addresses)) for name in names]
        return pa.StructArray.from_arrays(columns, names=names)

    geo = f.arrow_udf(answer, "country string, verdict string")("ip")
    show("arrow_udf", names, frame.select(geo.alias("geo")))


def by_map(names):
    def answer(batches):
        for batch in batches:
            columns = [pa.array([VALUES[name]] * len(batch)) for name in names]
            geo = pa.StructArray.from_arrays(columns, names=names)
            yield pa.RecordBatch.from_arrays([geo], names=["geo"])

    schema = "geo struct<country: string, verdict: string>"
    show("mapInArrow", names, frame.mapInArrow(answer, schema))


for run in (by_udf, by_map):
    for names in (["country", "verdict"], ["country", "verdikt"], ["verdict", "country"]):
        run(names)
PYTHON
cat > expected <<'EXPECTED'
arrow_udf, country and verdict: CN INSIDE
arrow_udf, country and verdikt: CN None
arrow_udf, verdict and country: CN INSIDE
mapInArrow, country and verdict: CN INSIDE
mapInArrow, country and verdikt: CN INSIDE
mapInArrow, verdict and country: INSIDE CN
EXPECTED
diff expected found || { echo "changed" >&2; exit 1; }

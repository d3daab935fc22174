"""Size on disk and scan speed beside DuckDB and DataFusion over Parquet, on the same 20 M order rows, in one run.

    cargo build --release && python3 benches/peers.py --rows 20000000

DuckDB makes the rows (deterministic) and writes them to Parquet with zstd; Tidemill reads that file with its `file` source. Answers are
compared before times are. Needs duckdb, datafusion, pyarrow and psycopg from PyPI; they go into ~/.cache/tidemill/peers.
What counts as better: fewer bytes a row, fewer milliseconds a query. Medians of --repeat runs; every engine has the machine to itself.
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

root = pathlib.Path(__file__).resolve().parent.parent
cache = pathlib.Path(os.environ.get("TIDEMILL_CACHE", pathlib.Path.home() / ".cache/tidemill"))
venv = cache / "peers"
if pathlib.Path(sys.prefix) != venv:
    if not (venv / "bin/python").exists():
        subprocess.check_call([sys.executable, "-m", "venv", venv])
        subprocess.check_call([venv / "bin/python", "-m", "pip", "install", "-q", "duckdb", "datafusion", "pyarrow", "psycopg[binary]"])
    os.execv(venv / "bin/python", [str(venv / "bin/python"), *sys.argv])

import datafusion  # noqa: E402
import duckdb  # noqa: E402
import psycopg  # noqa: E402

sys.path.insert(0, str(root / "tests/clients"))
from lib.tidemill import Server  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--rows", type=int, default=20_000_000)
parser.add_argument("--repeat", type=int, default=5)
parser.add_argument("--server", default=str(root / "target/release/tidemill"))
parser.add_argument("--folder", default="/tmp/tidemill-peers")
args = parser.parse_args()

folder = pathlib.Path(args.folder)
folder.mkdir(parents=True, exist_ok=True)
parquet = folder / f"orders-{args.rows}.parquet"
duck = duckdb.connect()
duck.execute("SET threads = 2")
if not parquet.exists():
    print(f"writing {args.rows} rows to {parquet} …")
    duck.execute(f"""
        COPY (SELECT i AS id,
                (pow((h1 % 1000000) / 1e6, 3) * 100000)::INTEGER AS restaurant_id,
                (h2 % 5000000)::BIGINT AS customer_id,
                'city-' || lpad((pow((h3 % 10000) / 1e4, 2) * 200)::INTEGER::VARCHAR, 3, '0') AS city,
                ['placed', 'accepted', 'cooking', 'picked_up', 'delivered', 'delivered', 'delivered', 'cancelled'][(1 + h4 % 8)::BIGINT] AS status,
                (1 + h1 % 9)::INTEGER AS items,
                (5 + (h2 % 9000) / 100.0)::DECIMAL(8,2) AS price,
                (h3 % 50) / 10.0::DOUBLE AS tip,
                h4 % 3 = 0 AS paid,
                (TIMESTAMP '2024-01-01 00:00:00' + to_microseconds(i * 20000 + (h1 % 2000000)::BIGINT))::TIMESTAMPTZ AS ts,
                '{{"src": "' || ['app', 'web', 'kiosk'][(1 + h2 % 3)::BIGINT] || '", "promo": ' || (h3 % 20)::VARCHAR || '}}' AS tags
              FROM (SELECT range AS i, hash(range) AS h1, hash(range + 1000000007) AS h2, hash(range * 3 + 1) AS h3, hash(range * 7 + 5) AS h4
                    FROM range({args.rows})))
        TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)""")

QUERIES = {
    "count, 200 groups": "SELECT city, count(*) FROM orders GROUP BY city ORDER BY city",
    "sum, 200 groups": "SELECT city, count(*), sum(price) FROM orders GROUP BY city ORDER BY city",
    "filtered count": "SELECT count(*) FROM orders WHERE status = 'cancelled' AND items >= 5",
    "filtered group": "SELECT status, sum(items) FROM orders WHERE city = 'city-007' GROUP BY status ORDER BY status",
    "one day": "SELECT count(*), sum(items) FROM orders WHERE ts >= '2024-01-03T00:00:00Z' AND ts < '2024-01-04T00:00:00Z'",
    "point": "SELECT id, restaurant_id, price FROM orders WHERE id = 12345678",
    "top 10": "SELECT id, price FROM orders ORDER BY price DESC, id LIMIT 10",
    "5000 groups, two keys": "SELECT city, items, status, count(*) FROM orders GROUP BY city, items, status ORDER BY city, items, status",
}


def normal(rows):
    return [tuple(str(value) for value in row) for row in rows]


def timed(run):
    times, rows = [], None
    for _ in range(args.repeat):
        start = time.perf_counter()
        rows = run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), normal(rows)


with Server(args.server) as server, psycopg.connect(server.dsn, autocommit=True) as c:
    c.execute(f"CREATE SOURCE f (id BIGINT, restaurant_id INT, customer_id BIGINT, city TEXT, status TEXT, items INT, price NUMERIC(8,2), "
              f"tip DOUBLE PRECISION, paid BOOLEAN, ts TIMESTAMPTZ, tags TEXT) WITH (connector = 'file', path = '{parquet}', format = 'parquet')")
    columns = ("id BIGINT, restaurant_id INT, customer_id BIGINT, city TEXT, status TEXT, items INT, price NUMERIC(8,2), "
               "tip DOUBLE PRECISION, paid BOOLEAN, ts TIMESTAMPTZ, tags TEXT")
    start = time.perf_counter()
    c.execute(f"CREATE TABLE orders ({columns}) WITH (time_column = 'ts', partitions = 2, seal_rows = 1000000) FROM SOURCE f")
    while c.execute("SELECT count(*) FROM orders").fetchone()[0] < args.rows:
        time.sleep(0.2)
    c.execute("SELECT rt.seal('orders')")
    print(f"loaded and sealed in {time.perf_counter() - start:.1f} s")
    ours = c.execute("SELECT sum(bytes) FROM rt.segments WHERE \"table\" = 'orders'").fetchone()[0]
    theirs = parquet.stat().st_size
    print(f"disk: {float(ours) / args.rows:.2f} bytes/row, Parquet with zstd {theirs / args.rows:.2f} bytes/row, ratio {float(ours) / theirs:.2f}")

    duck.execute(f"CREATE TABLE orders AS SELECT * FROM '{parquet}'")
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(2))
    context.register_parquet("orders", str(parquet))
    engines = {
        "tidemill": lambda sql: c.execute(sql).fetchall(),
        "duckdb": lambda sql: duck.execute(sql).fetchall(),
        "datafusion+parquet": lambda sql: [tuple(row.values()) for batch in context.sql(sql).collect() for row in batch.to_pylist()],
    }
    print(f"{'query (median ms)':24}" + "".join(f"{name:>20}" for name in engines) + f"{'/ datafusion':>14}")
    for name, sql in QUERIES.items():
        results = {engine: timed(lambda: run(sql)) for engine, run in engines.items()}
        answers = {engine: rows for engine, (_, rows) in results.items()}
        for engine, rows in answers.items():
            if rows != answers["duckdb"]:
                raise SystemExit(f"{name}: {engine} answers {rows[:3]}…, duckdb {answers['duckdb'][:3]}…")
        ratio = results["tidemill"][0] / results["datafusion+parquet"][0]
        print(f"{name:24}" + "".join(f"{ms:>20.1f}" for ms, _ in results.values()) + f"{ratio:>14.2f}")

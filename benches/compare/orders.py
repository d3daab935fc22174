"""Dashboards and scans over an orders table, beside DuckDB, ClickHouse's engine and DataFusion over Parquet, on the same rows, in one run.

    cargo build --release && python3 benches/compare/orders.py --rows 20000000

DuckDB makes the rows (from hashes, the same each time) and writes them to Parquet with zstd, which all engines load. Three rounds, each on
the same table: no index; inverted, range and Bloom indexes; a star-tree beside ClickHouse's aggregating projection. Answers are compared
before times are printed; of approximate ones the worst relative error is. What counts as better: fewer bytes a row, fewer milliseconds a query.
Medians of --repeat runs after one that is not counted. Answers that Tidemill kept (rt.use_result_cache) are not used.
"""
import pathlib

import environment

environment.enter()

import duckdb  # noqa: E402
import psycopg  # noqa: E402, F401

from engines import ClickHouse, DataFusion, DuckDb, Table, Tidemill, exactly  # noqa: E402
from lib.tidemill import Server  # noqa: E402

parser = environment.arguments(__doc__, "/tmp/tidemill-orders")
parser.add_argument("--rows", type=int, default=20_000_000)
args = parser.parse_args()


def generate(parquet):
    print(f"writing {args.rows} rows to {parquet} …", flush=True)
    duckdb.execute(f"""
        COPY (SELECT i AS id,
                (pow((h1 % 1000000) / 1e6, 3) * 20000)::INTEGER AS restaurant_id,
                (h2 % 2000000)::BIGINT AS customer_id,
                (h3 % 30000)::INTEGER AS courier_id,
                'city-' || lpad((pow((h3 % 10000) / 1e4, 2) * 200)::INTEGER::VARCHAR, 3, '0') AS city,
                ['placed', 'accepted', 'cooking', 'picked_up', 'delivered', 'delivered', 'delivered', 'cancelled'][(1 + h4 % 8)::BIGINT] AS status,
                ['card', 'card', 'card', 'cash', 'wallet'][(1 + h4 // 8 % 5)::BIGINT] AS payment,
                (1 + h1 % 9)::INTEGER AS items,
                (5 + (h2 % 9000) / 100.0)::DECIMAL(8,2) AS price,
                (h3 % 50) / 10.0::DOUBLE AS tip,
                ((h4 % 15000) / 1000.0)::DOUBLE AS distance,
                h4 % 3 = 0 AS paid,
                (TIMESTAMP '2024-01-01 00:00:00' + to_microseconds(i * 20000 + (h1 % 2000000)::BIGINT))::TIMESTAMPTZ AS ts,
                (TIMESTAMP '2024-01-01 00:30:00' + to_microseconds(i * 20000 + (h2 % 1800000000)::BIGINT))::TIMESTAMPTZ AS delivered_at,
                '{{"src": "' || ['app', 'web', 'kiosk'][(1 + h2 % 3)::BIGINT] || '", "promo": ' || (h3 % 20)::VARCHAR || '}}' AS tags
              FROM (SELECT range AS i, hash(range) AS h1, hash(range + 1000000007) AS h2, hash(range * 3 + 1) AS h3, hash(range * 7 + 5) AS h4
                    FROM range({args.rows})))
        TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)""")


COLUMNS = """id BIGINT, restaurant_id INT, customer_id BIGINT, courier_id INT, city TEXT, status TEXT, payment TEXT, items INT,
price NUMERIC(8,2), tip DOUBLE PRECISION, distance DOUBLE PRECISION, paid BOOLEAN, ts TIMESTAMPTZ, delivered_at TIMESTAMPTZ, tags TEXT"""
CLICKHOUSE = """id Int64,\nrestaurant_id Int32,\ncustomer_id Int64,\ncourier_id Int32,\ncity LowCardinality(String),\nstatus LowCardinality(String),
payment LowCardinality(String),\nitems Int32,\nprice Decimal64(2),\ntip Float64,\ndistance Float64,\npaid Bool,\nts DateTime64(6, 'UTC'),
delivered_at DateTime64(6, 'UTC'),\ntags String"""
# What is known of the rows: 50 a second from the first of January 2024 on.
LAST_SECOND = args.rows // 50
LAST = f"TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL '{LAST_SECOND} seconds'"
CLICKHOUSE_LAST = f"toDateTime64('2024-01-01 00:00:00', 6, 'UTC') + toIntervalSecond({LAST_SECOND})"
RECENT = "SELECT restaurant_id, count(*) AS orders FROM orders WHERE ts >= {} - INTERVAL '15 minutes' GROUP BY restaurant_id ORDER BY orders DESC, restaurant_id LIMIT 10"
HOURS = "SELECT date_trunc('hour', ts) AS hour, count(*), sum(price) FROM orders GROUP BY 1 ORDER BY 1"
DAY = "ts >= '2024-01-03 00:00:00+00' AND ts < '2024-01-04 00:00:00+00'"
CLICKHOUSE_DAY = "ts >= '2024-01-03 00:00:00' AND ts < '2024-01-04 00:00:00'"

SCANS = [
    ("time series by hour", HOURS, {}),
    ("count, 200 groups", "SELECT city, count(*) FROM orders GROUP BY city ORDER BY city", {}),
    ("sum, 200 groups", "SELECT city, count(*), sum(price) FROM orders GROUP BY city ORDER BY city", {}),
    ("drill-down, 1 dimension", "SELECT status, count(*), sum(price) FROM orders WHERE city = 'city-007' GROUP BY status ORDER BY status", {}),
    ("drill-down, 2 dimensions", "SELECT items, count(*), sum(price) FROM orders WHERE city = 'city-007' AND status = 'cancelled' GROUP BY items ORDER BY items", {}),
    ("drill-down, 4 dimensions", "SELECT count(*), sum(price) FROM orders WHERE city = 'city-007' AND status = 'delivered' AND payment = 'cash' AND items = 3", {}),
    ("two conditions, 0.14 %", "SELECT count(*), sum(price) FROM orders WHERE city = 'city-007' AND items = 3", {}),
    ("one day", f"SELECT count(*), sum(items) FROM orders WHERE {DAY}", {"clickhouse": f"SELECT count(*), sum(items) FROM orders WHERE {CLICKHOUSE_DAY}"}),
    ("price range", "SELECT count(*), sum(items) FROM orders WHERE price BETWEEN 42.00 AND 42.10", {}),
    ("several filters", "SELECT count(*) FROM orders WHERE status = 'cancelled' AND items >= 5 AND price < 20 AND paid", {}),
    ("two keys, 5,000 groups", "SELECT city, items, status, count(*) FROM orders GROUP BY city, items, status ORDER BY city, items, status", {}),
    ("sum of a product", "SELECT city, sum(price * items) FROM orders GROUP BY city ORDER BY city", {}),
    ("2 M groups, top 10", "SELECT customer_id, count(*) AS n, sum(price) FROM orders GROUP BY customer_id ORDER BY n DESC, customer_id LIMIT 10", {}),
    ("exact distinct", "SELECT count(DISTINCT customer_id) FROM orders", {}),
    ("exact distinct by status", "SELECT status, count(DISTINCT restaurant_id) FROM orders GROUP BY status ORDER BY status", {}),
    ("LIKE", "SELECT count(*) FROM orders WHERE city LIKE '%-01%'", {}),
    ("LIKE on JSON text", "SELECT count(*) FROM orders WHERE tags LIKE '%kiosk%'", {"clickhouse": "SELECT count(*) FROM orders WHERE tags LIKE '%kiosk%'"}),
    ("JSON member", "SELECT count(*) FROM orders WHERE tags::jsonb->>'src' = 'web'", {"duckdb": "SELECT count(*) FROM orders WHERE tags::json->>'src' = 'web'", "clickhouse": "SELECT count(*) FROM orders WHERE JSONExtractString(tags, 'src') = 'web'"}),
    ("top 10", "SELECT id, price FROM orders ORDER BY price DESC, id LIMIT 10", {}),
    ("top 10 of the last 15 minutes", RECENT.format(LAST), {"clickhouse": RECENT.format(CLICKHOUSE_LAST)}),
    ("a row by id", "SELECT id, restaurant_id, price FROM orders WHERE id = 12345678", {}),
]
APPROXIMATE = [
    ("approximate distinct", "SELECT approx_distinct(customer_id) FROM orders",
     {"duckdb": "SELECT approx_count_distinct(customer_id) FROM orders", "clickhouse": "SELECT uniqCombined(customer_id) FROM orders"},
     "SELECT count(DISTINCT customer_id) FROM orders"),
    ("approximate distinct by city", "SELECT city, approx_distinct(customer_id) FROM orders GROUP BY city ORDER BY city",
     {"duckdb": "SELECT city, approx_count_distinct(customer_id) FROM orders GROUP BY city ORDER BY city",
      "clickhouse": "SELECT city, uniqCombined(customer_id) FROM orders GROUP BY city ORDER BY city"},
     "SELECT city, count(DISTINCT customer_id) FROM orders GROUP BY city ORDER BY city"),
    ("95th percentile by city", "SELECT city, approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY distance) FROM orders GROUP BY city ORDER BY city",
     {"duckdb": "SELECT city, approx_quantile(distance, 0.95) FROM orders GROUP BY city ORDER BY city",
      "clickhouse": "SELECT city, quantileTDigest(0.95)(distance) FROM orders GROUP BY city ORDER BY city"},
     "SELECT city, quantile_cont(distance, 0.95) FROM orders GROUP BY city ORDER BY city"),
]
WITHOUT_DATAFUSION = {"JSON member", "LIKE on JSON text"}
FILTERS = {"drill-down, 1 dimension", "drill-down, 2 dimensions", "drill-down, 4 dimensions", "two conditions, 0.14 %", "price range", "several filters", "LIKE", "JSON member", "a row by id"}
INDEXES = ["inverted (city)", "inverted (status)", "inverted (payment)", "inverted (items)", "inverted (restaurant_id)", "range (price)", "bloom (id)", "inverted (id)"]
CUBE = [
    ("cities", "SELECT city, count(*), sum(price) FROM orders GROUP BY city ORDER BY city", {}),
    ("a city's statuses", "SELECT status, count(*), sum(price) FROM orders WHERE city = 'city-007' GROUP BY status ORDER BY status", {}),
    ("a city's hours", "SELECT date_trunc('hour', ts) AS hour, count(*), sum(price) FROM orders WHERE city = 'city-007' GROUP BY 1 ORDER BY 1",
     {"clickhouse": "SELECT toStartOfHour(ts) AS hour, count(*), sum(price) FROM orders WHERE city = 'city-007' GROUP BY 1 ORDER BY 1"}),
    ("statuses of three cities", "SELECT status, count(*), sum(price) FROM orders WHERE city IN ('city-001', 'city-007', 'city-100') GROUP BY status ORDER BY status", {}),
    ("all by hour", HOURS, {"clickhouse": "SELECT toStartOfHour(ts) AS hour, count(*), sum(price) FROM orders GROUP BY 1 ORDER BY 1"}),
    ("the whole", "SELECT count(*), sum(price) FROM orders", {}),
]


def bytes_a_row():
    both = "SELECT bytes FROM rt.segments WHERE \"table\" = 'orders' UNION ALL SELECT bytes FROM rt.indexes WHERE \"table\" = 'orders'"
    return float(tidemill.run(f"SELECT sum(bytes) FROM ({both}) AS files")[0][0]) / args.rows


def round_of(title, queries, names=None):
    print(f"\n== {title}", flush=True)
    table = Table(engines, args.repeat)
    for name, sql, variants, *exact in queries:
        if names is None or name in names:
            table.engines = [engine for engine in engines if engine.name != "datafusion" or name not in WITHOUT_DATAFUSION]
            known = exactly(duckdb_engine, exact[0]) if exact else None
            table.line(name, sql, variants, known)


folder = pathlib.Path(args.folder)
folder.mkdir(parents=True, exist_ok=True)
parquet = folder / f"orders-{args.rows}.parquet"
if not parquet.exists():
    generate(parquet)

with Server(args.server) as server:
    tidemill = Tidemill(server)
    tidemill.load(parquet, "orders", COLUMNS, "time_column = 'ts', partitions = 2, seal_rows = 1000000")
    engines = [tidemill]
    duckdb_engine = None if "duckdb" in args.without else DuckDb(parquet, "orders")
    if duckdb_engine:
        engines.append(duckdb_engine)
    if "clickhouse" not in args.without:
        clickhouse = ClickHouse(parquet, "orders", folder / "clickhouse", "city, status, ts", CLICKHOUSE)
        engines.append(clickhouse)
        print(f"disk: clickhouse {clickhouse.bytes('orders') / args.rows:.2f} bytes a row")
    if "datafusion" not in args.without:
        engines.append(DataFusion(parquet, "orders"))
    print(f"disk: tidemill {bytes_a_row():.2f} bytes a row, Parquet with zstd {parquet.stat().st_size / args.rows:.2f}")
    round_of("no index", SCANS)
    if duckdb_engine:
        round_of("approximate, no index", APPROXIMATE)

    for clause in INDEXES:
        print(f"index {clause}: {tidemill.index('orders', clause):.1f} s")
    print(f"disk with these indexes: {bytes_a_row():.2f} bytes a row")
    engines = [engine for engine in engines if engine.name != "datafusion"]
    round_of("with indexes", SCANS, FILTERS)

    took = tidemill.index("orders", "star_tree (city, status, date_trunc('hour', ts)) AGGREGATE (count(*), sum(price))")
    print(f"star-tree: {took:.1f} s; disk: {bytes_a_row():.2f} bytes a row")
    if "clickhouse" not in args.without:
        clickhouse.command("ALTER TABLE orders ADD PROJECTION cube (SELECT city, status, toStartOfHour(ts), count(), sum(price) GROUP BY city, status, toStartOfHour(ts))")
        clickhouse.command("ALTER TABLE orders MATERIALIZE PROJECTION cube SETTINGS mutations_sync = 2")
    round_of("star-tree, aggregating projection", CUBE)
    tidemill.run_command("SET rt.use_star_tree = off")
    round_of("the same without them", CUBE)
    tidemill.run_command("SET rt.use_star_tree = on")
    tidemill.run_command("SET rt.use_result_cache = on")
    round_of("scans again, with answers kept", SCANS, {name for name, *_ in SCANS[:10]})

"""The Star Schema Benchmark's 13 queries on the flat table, beside DuckDB, ClickHouse's engine and DataFusion over Parquet.

    cargo build --release && python3 benches/compare/ssb.py --scale 1

The rows follow the benchmark's public specification (O'Neil, O'Neil, Chen: Star Schema Benchmark, revision 3): distributions and domains
of its columns, made by DuckDB from hashes and so the same each time; 6 M rows for each unit of --scale. Medians of --repeat runs, one
engine at a time; answers are compared before times are printed. What counts as better: a smaller sum of the 13 medians.
"""
import pathlib

import environment

environment.enter()

import duckdb  # noqa: E402
import psycopg  # noqa: E402, F401

from engines import ClickHouse, DataFusion, DuckDb, Table, Tidemill  # noqa: E402
from lib.tidemill import Server  # noqa: E402

parser = environment.arguments(__doc__, "/tmp/tidemill-ssb")
parser.add_argument("--scale", type=int, default=1)
args = parser.parse_args()

NATIONS = {
    "AFRICA": ["ALGERIA", "ETHIOPIA", "KENYA", "MOROCCO", "MOZAMBIQUE"],
    "AMERICA": ["ARGENTINA", "BRAZIL", "CANADA", "PERU", "UNITED STATES"],
    "ASIA": ["CHINA", "INDIA", "INDONESIA", "JAPAN", "VIETNAM"],
    "EUROPE": ["FRANCE", "GERMANY", "ROMANIA", "RUSSIA", "UNITED KINGDOM"],
    "MIDDLE EAST": ["EGYPT", "IRAN", "IRAQ", "JORDAN", "SAUDI ARABIA"],
}


def place(prefix, number):
    """SQL for region, nation and city that the hash `number` chooses: 5, 25 and 250 of them."""
    regions, nations = list(NATIONS), [nation for names in NATIONS.values() for nation in names]
    nation = f"{nations}[1 + {number} % 25]"
    return (f"{regions}[1 + ({number} % 25) // 5] AS {prefix}_region, {nation} AS {prefix}_nation, "
            f"rpad({nation}, 9, ' ') || (({number} // 25) % 10)::VARCHAR AS {prefix}_city")


def generate(parquet):
    rows = 6_000_000 * args.scale
    print(f"writing {rows} rows to {parquet} …", flush=True)
    parts = 200_000 * max(1, 1 + args.scale.bit_length() - 1)
    duckdb.execute(f"""
        COPY (
          WITH numbers AS (
            SELECT range AS i, range // 4 AS o FROM range({rows})),
          keys AS (
            SELECT i, o, i % 4 + 1 AS linenumber,
              (hash(o * 3 + 1) % {30_000 * args.scale} + 1)::INTEGER AS custkey,
              (hash(i * 5 + 2) % {parts} + 1)::INTEGER AS partkey,
              (hash(i * 7 + 3) % {2_000 * args.scale} + 1)::INTEGER AS suppkey,
              DATE '1992-01-01' + (hash(o * 11 + 4) % 2406)::INTEGER AS day,
              (hash(i * 13 + 5) % 50 + 1)::INTEGER AS quantity,
              (hash(i * 17 + 6) % 11)::INTEGER AS discount,
              (hash(i * 19 + 7) % 9)::INTEGER AS tax
            FROM numbers),
          chosen AS (
            SELECT *, hash(custkey) % 250 AS ch, hash(suppkey + 1000000) % 250 AS sh,
              (hash(partkey + 2000000) % 5)::INTEGER AS mfgr, (hash(partkey + 3000000) % 5)::INTEGER AS cat, (hash(partkey + 4000000) % 40 + 1)::INTEGER AS brand,
              90000 + (partkey // 10) % 20001 + 100 * (partkey % 1000) AS unit
            FROM keys)
          SELECT (o + 1)::INTEGER AS lo_orderkey, linenumber::INTEGER AS lo_linenumber, custkey AS lo_custkey, partkey AS lo_partkey, suppkey AS lo_suppkey,
            day AS lo_orderdate, (year(day) * 10000 + month(day) * 100 + day(day))::INTEGER AS d_datekey, year(day)::INTEGER AS d_year,
            (year(day) * 100 + month(day))::INTEGER AS d_yearmonthnum, strftime(day, '%b%Y') AS d_yearmonth, weekofyear(day)::INTEGER AS d_weeknuminyear,
            quantity AS lo_quantity, (quantity * unit)::INTEGER AS lo_extendedprice, discount AS lo_discount,
            (quantity * unit * (100 - discount) // 100)::INTEGER AS lo_revenue, (6 * unit // 10)::INTEGER AS lo_supplycost, tax AS lo_tax,
            ['1-URGENT', '2-HIGH', '3-MEDIUM', '4-NOT SPECIFIED', '5-LOW'][1 + (hash(o * 23 + 8) % 5)::INTEGER] AS lo_orderpriority,
            ['REG AIR', 'AIR', 'RAIL', 'TRUCK', 'MAIL', 'FOB', 'SHIP'][1 + (hash(i * 29 + 9) % 7)::INTEGER] AS lo_shipmode,
            {place('c', 'ch::INTEGER')}, {place('s', 'sh::INTEGER')},
            'MFGR#' || (mfgr + 1)::VARCHAR AS p_mfgr, 'MFGR#' || (mfgr + 1)::VARCHAR || (cat + 1)::VARCHAR AS p_category,
            'MFGR#' || (mfgr + 1)::VARCHAR || (cat + 1)::VARCHAR || brand::VARCHAR AS p_brand
          FROM chosen ORDER BY lo_orderkey, lo_linenumber)
        TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)""")


COLUMNS = """lo_orderkey INT, lo_linenumber INT, lo_custkey INT, lo_partkey INT, lo_suppkey INT, lo_orderdate DATE, d_datekey INT, d_year INT,
d_yearmonthnum INT, d_yearmonth TEXT, d_weeknuminyear INT, lo_quantity INT, lo_extendedprice INT, lo_discount INT, lo_revenue INT,
lo_supplycost INT, lo_tax INT, lo_orderpriority TEXT, lo_shipmode TEXT, c_region TEXT, c_nation TEXT, c_city TEXT, s_region TEXT, s_nation TEXT,
s_city TEXT, p_mfgr TEXT, p_category TEXT, p_brand TEXT"""
CLICKHOUSE = ",\n".join(
    column.strip().replace(" INT", " Int32").replace(" DATE", " Date32").replace(" TEXT", " LowCardinality(String)")
    for column in COLUMNS.replace("\n", " ").split(","))

QUERIES = {
    "1.1": "SELECT sum(lo_extendedprice::bigint * lo_discount) FROM ssb WHERE d_year = 1993 AND lo_discount BETWEEN 1 AND 3 AND lo_quantity < 25",
    "1.2": "SELECT sum(lo_extendedprice::bigint * lo_discount) FROM ssb WHERE d_yearmonthnum = 199401 AND lo_discount BETWEEN 4 AND 6 AND lo_quantity BETWEEN 26 AND 35",
    "1.3": "SELECT sum(lo_extendedprice::bigint * lo_discount) FROM ssb WHERE d_weeknuminyear = 6 AND d_year = 1994 AND lo_discount BETWEEN 5 AND 7 AND lo_quantity BETWEEN 26 AND 35",
    "2.1": "SELECT sum(lo_revenue), d_year, p_brand FROM ssb WHERE p_category = 'MFGR#12' AND s_region = 'AMERICA' GROUP BY d_year, p_brand ORDER BY d_year, p_brand",
    "2.2": "SELECT sum(lo_revenue), d_year, p_brand FROM ssb WHERE p_brand >= 'MFGR#2221' AND p_brand <= 'MFGR#2228' AND s_region = 'ASIA' GROUP BY d_year, p_brand ORDER BY d_year, p_brand",
    "2.3": "SELECT sum(lo_revenue), d_year, p_brand FROM ssb WHERE p_brand = 'MFGR#2239' AND s_region = 'EUROPE' GROUP BY d_year, p_brand ORDER BY d_year, p_brand",
    "3.1": "SELECT c_nation, s_nation, d_year, sum(lo_revenue) AS revenue FROM ssb WHERE c_region = 'ASIA' AND s_region = 'ASIA' AND d_year >= 1992 AND d_year <= 1997 GROUP BY c_nation, s_nation, d_year ORDER BY d_year, revenue DESC, c_nation, s_nation",
    "3.2": "SELECT c_city, s_city, d_year, sum(lo_revenue) AS revenue FROM ssb WHERE c_nation = 'UNITED STATES' AND s_nation = 'UNITED STATES' AND d_year >= 1992 AND d_year <= 1997 GROUP BY c_city, s_city, d_year ORDER BY d_year, revenue DESC, c_city, s_city",
    "3.3": "SELECT c_city, s_city, d_year, sum(lo_revenue) AS revenue FROM ssb WHERE (c_city = 'UNITED KI1' OR c_city = 'UNITED KI5') AND (s_city = 'UNITED KI1' OR s_city = 'UNITED KI5') AND d_year >= 1992 AND d_year <= 1997 GROUP BY c_city, s_city, d_year ORDER BY d_year, revenue DESC, c_city, s_city",
    "3.4": "SELECT c_city, s_city, d_year, sum(lo_revenue) AS revenue FROM ssb WHERE (c_city = 'UNITED KI1' OR c_city = 'UNITED KI5') AND (s_city = 'UNITED KI1' OR s_city = 'UNITED KI5') AND d_yearmonth = 'Dec1997' GROUP BY c_city, s_city, d_year ORDER BY d_year, revenue DESC, c_city, s_city",
    "4.1": "SELECT d_year, c_nation, sum(lo_revenue - lo_supplycost) AS profit FROM ssb WHERE c_region = 'AMERICA' AND s_region = 'AMERICA' AND (p_mfgr = 'MFGR#1' OR p_mfgr = 'MFGR#2') GROUP BY d_year, c_nation ORDER BY d_year, c_nation",
    "4.2": "SELECT d_year, s_nation, p_category, sum(lo_revenue - lo_supplycost) AS profit FROM ssb WHERE c_region = 'AMERICA' AND s_region = 'AMERICA' AND (d_year = 1997 OR d_year = 1998) AND (p_mfgr = 'MFGR#1' OR p_mfgr = 'MFGR#2') GROUP BY d_year, s_nation, p_category ORDER BY d_year, s_nation, p_category",
    "4.3": "SELECT d_year, s_city, p_brand, sum(lo_revenue - lo_supplycost) AS profit FROM ssb WHERE s_nation = 'UNITED STATES' AND (d_year = 1997 OR d_year = 1998) AND p_category = 'MFGR#14' GROUP BY d_year, s_city, p_brand ORDER BY d_year, s_city, p_brand",
}

folder = pathlib.Path(args.folder)
folder.mkdir(parents=True, exist_ok=True)
parquet = folder / f"ssb-{args.scale}.parquet"
if not parquet.exists():
    generate(parquet)

with Server(args.server) as server:
    tidemill = Tidemill(server)
    tidemill.load(parquet, "ssb", COLUMNS, "partitions = 2, seal_rows = 1000000")
    rows = tidemill.run("SELECT count(*) FROM ssb")[0][0]
    print(f"disk: tidemill {float(tidemill.run('SELECT sum(bytes) FROM rt.segments')[0][0]) / rows:.1f} bytes a row, Parquet {parquet.stat().st_size / rows:.1f}")
    engines = [tidemill]
    if "duckdb" not in args.without:
        engines.append(DuckDb(parquet, "ssb"))
    if "clickhouse" not in args.without:
        engines.append(ClickHouse(parquet, "ssb", folder / "clickhouse", "d_datekey, lo_orderkey", CLICKHOUSE))
    if "datafusion" not in args.without:
        engines.append(DataFusion(parquet, "ssb"))
    table = Table(engines, args.repeat)
    for name, sql in QUERIES.items():
        table.line(name, sql)
    table.sum()

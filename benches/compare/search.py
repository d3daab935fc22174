"""Documents, words and places: indexes of each beside DuckDB and ClickHouse's engine, which look at every row (ClickHouse words through its own
token filter), on the same rows, in one run.

    cargo build --release && python3 benches/compare/search.py --rows 10000000

DuckDB makes the rows (from hashes, the same each time): orders' events with a JSON document, a line of a log and a place. Four rounds: sealed segments
without indexes, with them, and a million rows that are still being consumed, likewise. Answers are compared before times are printed.
What counts as better: fewer milliseconds a query. Medians of --repeat runs after one that is not counted.
"""
import pathlib
import time

import environment

environment.enter()

import duckdb  # noqa: E402
import psycopg  # noqa: E402, F401

from engines import ClickHouse, DuckDb, Table, Tidemill  # noqa: E402
from lib.tidemill import Server  # noqa: E402

parser = environment.arguments(__doc__, "/tmp/tidemill-search")
parser.add_argument("--rows", type=int, default=10_000_000)
parser.add_argument("--consuming", type=int, default=1_000_000, help="rows of the rounds in memory")
args = parser.parse_args()

COLUMNS = "id BIGINT, code BIGINT, doc {}, line TEXT, lat DOUBLE PRECISION, lng DOUBLE PRECISION"
CLICKHOUSE = "id Int64,\ncode Int64,\ndoc String,\nline String,\nlat Float64,\nlng Float64,\nINDEX words line TYPE tokenbf_v1(32768, 3, 0) GRANULARITY 1"
WORDS = ["accepted", "refused", "timeout", "retry", "route", "payment", "courier", "restaurant", "basket", "coupon", "address", "driver"]


def generate(parquet):
    print(f"writing {args.rows} rows to {parquet} …", flush=True)
    words = "[" + ", ".join(f"'{word}'" for word in WORDS) + "]"
    duckdb.execute(f"""
        COPY (SELECT i AS id, (h1 % 1000000007)::BIGINT AS code,
                '{{"user": {{"id": ' || (h1 % 100000)::VARCHAR || ', "plan": "' || ['free', 'plus', 'pro'][(1 + h2 % 3)::BIGINT]
                  || '"}}, "tags": ["t' || (h3 % 5000)::VARCHAR || '", "u' || (h4 % 20)::VARCHAR || '"], "ms": ' || (h4 % 10000)::VARCHAR || '}}' AS doc,
                {words}[(1 + h1 % 12)::BIGINT] || ' ' || {words}[(1 + h2 % 12)::BIGINT] || ' by host' || (h3 % 20000)::VARCHAR || ' request ' || (h4 % 1000000)::VARCHAR
                  || ' took ' || (h2 % 5000)::VARCHAR || ' ms' AS line,
                52.3 + (h2 % 400000) / 1e6 AS lat, 13.1 + (h3 % 600000) / 1e6 AS lng
              FROM (SELECT range AS i, hash(range) AS h1, hash(range + 1000000007) AS h2, hash(range * 3 + 1) AS h3, hash(range * 7 + 5) AS h4
                    FROM range({args.rows})))
        TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)""")


def metres(names):
    """The distance from a place, as SQL that every engine has."""
    lat, lng = names
    return (f"(2 * 6371008.8 * asin(sqrt(pow(sin(radians(lat - {lat}) / 2), 2)"
            f" + cos(radians({lat})) * cos(radians(lat)) * pow(sin(radians(lng - {lng}) / 2), 2))))")


def member(path, text):
    """A condition on a member of the document: ours, DuckDB's, ClickHouse's."""
    steps = path.split(".")
    ours = "".join(f"->'{step}'" for step in steps[:-1]) + f"->>'{steps[-1]}'"
    return (f"doc{ours} = '{text}'", f"doc::json->>'$.{path}' = '{text}'",
            f"JSONExtract{'String' if not text.isdigit() else 'Int'}(doc, {', '.join(repr(step) for step in steps)}) = " + (text if text.isdigit() else f"'{text}'"))


def question(name, ours, duck, click):
    select = "SELECT count(*), coalesce(sum(code), 0) FROM {} WHERE {}"
    return name, ours, duck, click, select


QUESTIONS = [
    question("a member of 100,000 values", *member("user.id", "4711")),
    question("a tag in an array", "doc @> '{\"tags\": [\"t77\"]}'", "list_contains((doc::json->'$.tags')::VARCHAR[], 't77')", "has(JSONExtract(doc, 'tags', 'Array(String)'), 't77')"),
    question("two members", "doc->'user'->>'id' = '4711' AND doc->'user'->>'plan' = 'pro'", "doc::json->>'$.user.id' = '4711' AND doc::json->>'$.user.plan' = 'pro'",
             "JSONExtractInt(doc, 'user', 'id') = 4711 AND JSONExtractString(doc, 'user', 'plan') = 'pro'"),
    question("a range of numbers", "(doc->>'ms')::numeric BETWEEN 17 AND 19", "(doc::json->>'$.ms')::INTEGER BETWEEN 17 AND 19", "JSONExtractInt(doc, 'ms') BETWEEN 17 AND 19"),
    question("a word of 500 rows", "line @@ 'host77'", "line LIKE '% host77 %'", "hasToken(line, 'host77')"),
    question("three words", "line @@ 'refused courier host77'", "line LIKE '%refused%' AND line LIKE '%courier%' AND line LIKE '% host77 %'", "hasToken(line, 'refused') AND hasToken(line, 'courier') AND hasToken(line, 'host77')"),
    question("a phrase", "line @@ phraseto_tsquery('refused courier by host77')", "line LIKE '%refused courier by host77 %'", "line LIKE '%refused courier by host77 %'"),
    question("common words", "line @@ 'timeout retry'", "line LIKE '%timeout%' AND line LIKE '%retry%'", "hasToken(line, 'timeout') AND hasToken(line, 'retry')"),
    question("200 m around a place", "geo_distance(lat, lng, 52.52, 13.405) < 200", f"{metres(('52.52', '13.405'))} < 200", f"{metres(('52.52', '13.405'))} < 200"),
    question("2 km around a place", "geo_distance(lat, lng, 52.52, 13.405) < 2000", f"{metres(('52.52', '13.405'))} < 2000", f"{metres(('52.52', '13.405'))} < 2000"),
]
INDEXES = ["json (doc)", "text (line)", "geo (lat, lng)", "range (code)"]


def round_of(title, engines, table):
    print(f"\n== {title}", flush=True)
    lines = Table(engines, args.repeat)
    for name, ours, duck, click, select in QUESTIONS:
        lines.line(name, select.format(table, ours), {"duckdb": select.format(table, duck), "clickhouse": select.format(table, click)})
    lines.sum()


def bytes_a_row(table, rows):
    both = f"SELECT bytes FROM rt.segments WHERE \"table\" = '{table}' UNION ALL SELECT bytes FROM rt.indexes WHERE \"table\" = '{table}'"
    return float(tidemill.run(f"SELECT sum(bytes) FROM ({both}) AS files")[0][0]) / rows


folder = pathlib.Path(args.folder)
folder.mkdir(parents=True, exist_ok=True)
parquet, part = folder / f"events-{args.rows}.parquet", folder / f"events-{args.rows}-{args.consuming}.parquet"
if not parquet.exists():
    generate(parquet)
if not part.exists():
    duckdb.execute(f"COPY (SELECT * FROM '{parquet}' LIMIT {args.consuming}) TO '{part}' (FORMAT parquet, COMPRESSION zstd)")

with Server(args.server) as server:
    tidemill = Tidemill(server)
    tidemill.load(parquet, "events", COLUMNS.format("JSONB"), "partitions = 2, seal_rows = 1000000")
    peers = []
    if "duckdb" not in args.without:
        peers.append(DuckDb(parquet, "events"))
    if "clickhouse" not in args.without:
        peers.append(ClickHouse(parquet, "events", folder / "clickhouse", "id", CLICKHOUSE))
    print(f"disk: tidemill {bytes_a_row('events', args.rows):.1f} bytes a row")
    round_of(f"{args.rows} sealed rows, no index", [tidemill, *peers], "events")
    for clause in INDEXES:
        print(f"index {clause}: {tidemill.index('events', clause):.1f} s; disk: {bytes_a_row('events', args.rows):.1f} bytes a row")
    round_of(f"{args.rows} sealed rows, with indexes", [tidemill, *peers], "events")

    print("\nrows in memory …", flush=True)
    columns = COLUMNS.format("JSONB")
    tidemill.run_command(f"CREATE SOURCE part_file ({columns}) WITH (connector = 'file', path = '{part}', format = 'parquet')")
    tidemill.run_command(f"CREATE TABLE part ({columns}) WITH (seal_rows = 100000000, seal_bytes = '4GB') FROM SOURCE part_file")
    tidemill.run_command("SELECT rt.drain('part_file')")
    states = tidemill.run("SELECT DISTINCT state FROM rt.segments WHERE \"table\" = 'part'")
    print(f"states: {', '.join(state for state, in states)}; {bytes_a_row('part', args.consuming):.1f} bytes a row")
    round_of(f"{args.consuming} rows in memory, no index", [tidemill], "part")
    for clause in INDEXES:
        tidemill.run_command(f"CREATE INDEX ON part USING {clause}")
    before, start = None, time.perf_counter()
    while before != (before := tidemill.run("SELECT sum(bytes) FROM rt.segments WHERE \"table\" = 'part'")[0][0]):
        time.sleep(2)
    print(f"indexed in {time.perf_counter() - start - 2:.0f} s; {bytes_a_row('part', args.consuming):.1f} bytes a row")
    round_of(f"{args.consuming} rows in memory, with indexes", [tidemill], "part")

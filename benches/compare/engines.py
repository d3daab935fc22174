"""The engines side by side: each takes SQL and gives rows; two threads each, everything loaded before anything is timed."""
import datetime
import decimal
import json
import statistics
import time


class DuckDb:
    name = "duckdb"

    def __init__(self, parquet, table):
        import duckdb
        self.connection = duckdb.connect()
        self.connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
        self.connection.execute(f"CREATE TABLE {table} AS SELECT * FROM '{parquet}'")

    def run(self, sql):
        return self.connection.execute(sql).fetchall()


class DataFusion:
    name = "datafusion"

    def __init__(self, parquet, table):
        import datafusion
        self.context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(2))
        self.context.register_parquet(table, str(parquet))

    def run(self, sql):
        return [tuple(row.values()) for batch in self.context.sql(sql).collect() for row in batch.to_pylist()]


class ClickHouse:
    """ClickHouse's engine inside of this process (chdb): a MergeTree in the given order, its own files in `folder`."""
    name = "clickhouse"

    def __init__(self, parquet, table, folder, order_by, columns):
        from chdb import session
        self.session = session.Session(str(folder))
        self.session.query("CREATE DATABASE IF NOT EXISTS b")
        self.session.query("USE b")
        self.settings = "SETTINGS max_threads = 2, use_query_cache = 0, use_query_condition_cache = 0, session_timezone = 'UTC'"
        self.session.query(f"DROP TABLE IF EXISTS {table}")
        self.session.query(f"CREATE TABLE {table} ({columns}) ENGINE = MergeTree ORDER BY ({order_by})")
        names = ", ".join(column.split()[0] for column in columns.split(",\n") if not column.startswith("INDEX "))
        self.session.query(f"INSERT INTO {table} SELECT {names} FROM file('{parquet}', Parquet) SETTINGS max_insert_threads = 2, max_threads = 2")
        self.session.query(f"OPTIMIZE TABLE {table} FINAL")

    def command(self, sql):
        self.session.query(sql)

    def bytes(self, table):
        return int(self.run(f"SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = '{table}'")[0][0])

    def run(self, sql):
        text = self.session.query(f"{sql} {self.settings}", "JSONCompactEachRow").bytes().decode()
        return [tuple(json.loads(line)) for line in text.splitlines() if line]


class Tidemill:
    """A server process of the release build, asked over the Postgres protocol with prepared statements, as a dashboard does."""
    name = "tidemill"

    def __init__(self, server):
        import psycopg
        self.connection = psycopg.connect(server.dsn, autocommit=True, prepare_threshold=0)
        # A peer computes each answer; so do we, unless a column says that answers were kept.
        self.connection.execute("SET rt.use_result_cache = off")

    def run(self, sql):
        return self.connection.execute(sql).fetchall()

    def load(self, parquet, table, columns, options):
        start = time.perf_counter()
        self.run_command(f"CREATE SOURCE {table}_file ({columns}) WITH (connector = 'file', path = '{parquet}', format = 'parquet')")
        self.run_command(f"CREATE TABLE {table} ({columns}) WITH ({options}) FROM SOURCE {table}_file")
        self.run_command(f"SELECT rt.drain('{table}_file')")
        self.run_command(f"SELECT rt.seal('{table}')")
        print(f"tidemill: {table} loaded and sealed in {time.perf_counter() - start:.1f} s", flush=True)

    def index(self, table, clause):
        """Creates an index; returns when it is there in every segment, with the seconds that took and its bytes."""
        start = time.perf_counter()
        self.run_command(f"CREATE INDEX ON {table} USING {clause}")
        while self.run("SELECT count(*) FROM rt.indexes WHERE state <> 'ready'")[0][0] > 0:
            time.sleep(0.05)
        return time.perf_counter() - start

    def run_command(self, sql):
        self.connection.execute(sql)


def normal(value):
    """A value in a form in which the engines' values are equal: numbers to nine digits, times without a zone."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None).isoformat(" ").removesuffix(".000000")
    text = str(value)
    try:
        return f"{decimal.Decimal(text):.9g}".rstrip("0").rstrip(".") if "." in text or "e" in text.lower() else str(int(text))
    except (decimal.InvalidOperation, ValueError):
        return text.replace("T", " ").removesuffix(".000000") if text[:4].isdigit() else text


def timed(engine, sql, repeat):
    """Median of the milliseconds that `repeat` runs take, and the rows."""
    engine.run(sql)
    times, rows = [], None
    for _ in range(repeat):
        start = time.perf_counter()
        rows = engine.run(sql)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), [tuple(normal(value) for value in row) for row in rows]


class Table:
    """Prints a line per query, a column per engine, and at the end the sums."""

    def __init__(self, engines, repeat):
        self.engines, self.repeat = engines, repeat
        self.sums = {engine.name: 0.0 for engine in engines}
        print(f"{'median ms':30}" + "".join(f"{engine.name:>14}" for engine in engines) + f"{'/ best peer':>14}", flush=True)

    def line(self, name, sql, variants=None, exact=None):
        """Times one query. `variants`: another spelling by engine. `exact`: for an approximate one, the rows that would be exact: how far each
        engine's last column is from them at worst is printed."""
        variants = variants or {}
        seen = {}
        for engine in self.engines:
            seen[engine.name] = timed(engine, variants.get(engine.name, sql), self.repeat)
            self.sums[engine.name] += seen[engine.name][0]
        reference = next(iter(engine.name for engine in self.engines if engine.name != "tidemill"), None)
        if exact is None and reference:
            for engine, (_, rows) in seen.items():
                expected = seen[reference][1]
                if rows != expected:
                    raise SystemExit(f"{name}: {engine} answers {rows[:3]}… ({len(rows)} rows), {reference} {expected[:3]}… ({len(expected)} rows)")
        peers = [ms for engine, (ms, _) in seen.items() if engine != "tidemill"]
        ratio = f"{seen['tidemill'][0] / min(peers):>14.2f}" if peers and "tidemill" in seen else ""
        print(f"{name:30}" + "".join(f"{ms:>14.1f}" for ms, _ in seen.values()) + ratio, flush=True)
        if exact is not None:
            print(f"{'  worst relative error':30}" + "".join(f"{100 * worst(rows, exact):>13.2f}%" for _, rows in seen.values()), flush=True)

    def sum(self):
        peers = [ms for engine, ms in self.sums.items() if engine != "tidemill"]
        ratio = f"{self.sums['tidemill'] / min(peers):>14.2f}" if peers else ""
        print(f"{'sum':30}" + "".join(f"{ms:>14.1f}" for ms in self.sums.values()) + ratio, flush=True)


def worst(rows, exact):
    """The largest relative error of the last column; other columns must be the same."""
    if [row[:-1] for row in rows] != [row[:-1] for row in exact]:
        raise SystemExit(f"groups differ: {rows[:3]}…, {exact[:3]}…")
    return max(abs(float(row[-1]) - float(known[-1])) / max(abs(float(known[-1])), 1e-9) for row, known in zip(rows, exact))


def exactly(engine, sql):
    """Rows in the form that [`Table.line`] compares with."""
    return [tuple(normal(value) for value in row) for row in engine.run(sql)]

"""psycopg 3: every type both ways in text and binary, COPY both ways, cursors, errors, cancel."""
import datetime as dt
import sys
import threading
import time
import uuid
from decimal import Decimal

import psycopg

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

UTC = dt.timezone.utc
ROW = (1, True, 7, 8, 9_000_000_000, 1.5, 2.25, Decimal("123456789.1234"), "text ☃", b"\x00\xff", dt.date(2024, 2, 29),
       dt.datetime(2024, 2, 29, 1, 2, 3, 456789), dt.datetime(2024, 2, 29, 1, 2, 3, 456789, UTC),
       uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), {"a": [1, 2.5, None]}, [1, None, 3], ["x", "y z", None])
COLUMNS = ("id BIGINT", "b BOOLEAN", "s SMALLINT", "i INT", "l BIGINT", "r REAL", "d DOUBLE PRECISION", "n NUMERIC(20,4)", "x TEXT",
           "y BYTEA", "dt DATE", "ts TIMESTAMP", "tz TIMESTAMPTZ", "u UUID", "j JSONB", "ai INT[]", "at TEXT[]")


def check(name, got, wanted):
    assert got == wanted, f"{name}: got {got!r}, wanted {wanted!r}"


with Server(sys.argv[1]) as server:
    with psycopg.connect(server.dsn, autocommit=True) as c:
        c.execute(f"CREATE TABLE t ({', '.join(COLUMNS)})")
        value = psycopg.types.json.Jsonb(ROW[14])
        parameters = ROW[:14] + (value,) + ROW[15:]
        marks = ", ".join(["%s"] * len(ROW))
        c.execute(f"INSERT INTO t VALUES ({marks})", parameters)
        binary = ", ".join(["%b"] * len(ROW))
        c.execute(f"INSERT INTO t VALUES ({binary})", (2,) + parameters[1:])
        c.execute("INSERT INTO t (id) VALUES (3)")
        for as_binary in (False, True):
            cursor = c.cursor(binary=as_binary)
            for key in (1, 2):
                row = cursor.execute("SELECT * FROM t WHERE id = %s", (key,)).fetchone()
                check(f"row {key}, binary={as_binary}", row, (key,) + ROW[1:])
            check("nulls", cursor.execute("SELECT * FROM t WHERE id = 3").fetchone(), (3,) + (None,) * 16)
            # Each value as a parameter finds its row.
            for column, wanted in zip("b s i l r d n x y dt ts tz u".split(), ROW[1:14]):
                for mark in ("%s", "%b"):
                    count = cursor.execute(f"SELECT count(*) FROM t WHERE {column} = {mark}", (wanted,)).fetchone()[0]
                    check(f"{column} = {mark}", count, 2)
            check("= ANY", cursor.execute("SELECT count(*) FROM t WHERE id = ANY(%s)", ([1, 3, 99],)).fetchone()[0], 2)
            check("= ANY text", cursor.execute("SELECT count(*) FROM t WHERE x = ANY(%s)", (["text ☃", "no"],)).fetchone()[0], 2)

        # PostgreSQL would take rows and definitions back with the transaction; who relies on that is told what stays.
        said = []
        c.add_notice_handler(lambda notice: said.append(notice.message_primary))

        def told(what, *statements):
            said.clear()
            for sql in statements:
                try:
                    c.execute(sql, prepare=False)
                except psycopg.Error as error:
                    said.append(error.sqlstate)
            check(what, [text.split(" in this")[0] for text in said], WARNED[what])

        WARNED = {
            "a string": ["rows changed", "22012"], "a definition": ["definitions made", "42P01"], "rollback": ["rows changed and definitions made"],
            "commit of a failed one": ["22012", "rows changed"], "nothing to tell": ["22012"], "statements of their own": ["22012"],
            "read only": ["25006"], "read write": [], "transaction only": [], "refused": ["22023"]}
        c.execute("CREATE TABLE kept (id INT)")
        told("a string", "INSERT INTO kept VALUES (1); SELECT 1/0")
        told("a definition", "CREATE TABLE kept_too (id INT); SELECT * FROM nowhere")
        told("rollback", "BEGIN", "INSERT INTO kept VALUES (2)", "DROP TABLE kept_too", "ROLLBACK")
        told("commit of a failed one", "BEGIN", "INSERT INTO kept VALUES (3)", "SELECT 1/0", "COMMIT")
        told("nothing to tell", "BEGIN", "INSERT INTO kept VALUES (4)", "COMMIT", "SELECT 1; SELECT 1/0")
        told("statements of their own", "INSERT INTO kept VALUES (5)", "SELECT 1/0")
        check("kept", c.execute("SELECT count(*), sum(id) FROM kept").fetchone(), (5, 15))
        c.execute("SET default_transaction_read_only = on")
        told("read only", "INSERT INTO kept VALUES (6)")
        told("read write", "BEGIN READ WRITE", "INSERT INTO kept VALUES (6)", "COMMIT")
        c.execute("RESET default_transaction_read_only")
        told("transaction only", "SET transaction_read_only = on", "INSERT INTO kept VALUES (7)")
        told("refused", "SET bytea_output = 'escape'")
        c.execute("LISTEN told")
        c.execute("NOTIFY told, 'now'")
        heard = next(c.notifies(timeout=10))
        check("NOTIFY", (heard.channel, heard.payload, heard.pid), ("told", "now", c.info.backend_pid))
        changes = c.cursor().stream("SUBSCRIBE SELECT id FROM kept WHERE id >= %s", (7,))
        check("SUBSCRIBE", next(changes)[1:], (1, 7))
        with psycopg.connect(server.dsn, autocommit=True) as writer:
            writer.execute("INSERT INTO kept VALUES (9)")
            check("what came", next(changes)[1:], (1, 9))
            writer.execute("DELETE FROM kept WHERE id = 9")
            check("what went", next(changes)[1:], (-1, 9))
        c.cancel_safe()
        try:
            next(changes)
            check("SUBSCRIBE ends", "with a row", "57014")
        except psycopg.Error as error:
            check("SUBSCRIBE ends", error.sqlstate, "57014")
        plan = c.execute("EXPLAIN (ANALYZE, FORMAT json) SELECT id FROM kept WHERE id > 1").fetchone()[0][0]["Plan"]
        while "Plans" in plan and plan.get("Actual Rows") is None:
            plan = plan["Plans"][0]
        check("rows of a plan", (plan["Actual Rows"], type(plan["Actual Total Time"])), (6, float))

        # RETURNING: rows as they are stored, in text and binary, with and without a prepared statement, taken in parts, and the count of the tag.
        c.execute("CREATE TABLE returned (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'nameless', price NUMERIC(10,2), at TIMESTAMPTZ, tags TEXT[])")
        for as_binary in (False, True):
            for prepare in (False, True):
                cursor = c.cursor(binary=as_binary)
                what = f"binary={as_binary}, prepare={prepare}"
                cursor.execute("INSERT INTO returned (id, price, at, tags) VALUES (%s, %s, %s, %s) RETURNING *, id + %s AS next",
                               (1, Decimal("1.005"), ROW[12], ["a", None], 5), prepare=prepare)
                check(f"columns, {what}", [d.name for d in cursor.description], ["id", "name", "price", "at", "tags", "next"])
                check(f"INSERT RETURNING, {what}", cursor.fetchall(), [(1, "nameless", Decimal("1.01"), ROW[12], ["a", None], 6)])
                check(f"tag, {what}", (cursor.rowcount, cursor.statusmessage), (1, "INSERT 0 1"))
                cursor.execute("UPDATE returned SET price = price * %s WHERE id = %s RETURNING price, name", (2, 1), prepare=prepare)
                check(f"UPDATE RETURNING, {what}", (cursor.fetchall(), cursor.statusmessage), ([(Decimal("2.02"), "nameless")], "UPDATE 1"))
                cursor.execute("UPDATE returned SET price = 0 WHERE id = %s RETURNING id", (77,), prepare=prepare)
                check(f"no row, {what}", (cursor.fetchall(), cursor.statusmessage), ([], "UPDATE 0"))
                cursor.execute("DELETE FROM returned WHERE id = %s RETURNING id, price", (1,), prepare=prepare)
                check(f"DELETE RETURNING, {what}", (cursor.fetchall(), cursor.statusmessage), ([(1, Decimal("2.02"))], "DELETE 1"))
        many = c.cursor()
        many.executemany("INSERT INTO returned (id) VALUES (%s) RETURNING id", [(i,) for i in range(10, 15)], returning=True)
        got = []
        while True:
            got.append(many.fetchone()[0])
            if not many.nextset():
                break
        check("executemany", got, [10, 11, 12, 13, 14])
        c.execute("INSERT INTO returned (id, name, price, at, tags) VALUES (10, 'ten', 1, NULL, NULL) ON CONFLICT (id) DO UPDATE SET "
                  "name = EXCLUDED.name, price = EXCLUDED.price, at = EXCLUDED.at, tags = EXCLUDED.tags")
        check("upsert", c.execute("SELECT count(*), max(name) FROM returned WHERE id = 10").fetchone(), (1, "ten"))
        check("truncate", c.execute("TRUNCATE returned").statusmessage, "TRUNCATE TABLE")
        check("truncated", c.execute("SELECT count(*) FROM returned").fetchone()[0], 0)

        # A time zone of the session shows in text and does not change the instant.
        c.execute("SET TimeZone = 'Europe/Oslo'")
        check("shown", c.execute("SELECT tz::text FROM t WHERE id = 1").fetchone()[0], "2024-02-29 02:02:03.456789+01")
        check("instant", c.execute("SELECT tz FROM t WHERE id = 1").fetchone()[0], ROW[12])
        check("bound", c.execute("SELECT count(*) FROM t WHERE tz = %s", (ROW[12].astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))),))
              .fetchone()[0], 2)
        c.execute("RESET TimeZone")

        # COPY in, all three formats, and out again.
        c.execute("CREATE TABLE copied (id BIGINT, name TEXT, price NUMERIC(10,2), at TIMESTAMPTZ)")
        rows = [(i, None if i % 7 == 0 else f"na\tme\\{i}\n", Decimal(i) / 4, dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(seconds=i))
                for i in range(1000)]
        for kind in ("TEXT", "BINARY"):
            with c.cursor().copy(f"COPY copied FROM STDIN (FORMAT {kind})") as copy:
                copy.set_types(["int8", "text", "numeric", "timestamptz"])
                for row in rows:
                    copy.write_row(row)
        with c.cursor().copy("COPY copied (id, name) FROM STDIN (FORMAT csv, HEADER)") as copy:
            copy.write("id,name\n5000,\"quoted, \"\"twice\"\"\"\n5001,\n")
        check("copied", c.execute("SELECT count(*), count(name), sum(price) FROM copied").fetchone(),
              (2002, 2 * 857 + 1, 2 * sum(r[2] for r in rows)))
        for kind in ("TEXT", "BINARY"):
            out = []
            with c.cursor().copy(f"COPY (SELECT * FROM copied WHERE id < 1000 ORDER BY id) TO STDOUT (FORMAT {kind})") as copy:
                copy.set_types(["int8", "text", "numeric", "timestamptz"])
                for row in copy.rows():
                    out.append(tuple(row))
            check(f"COPY out {kind}", out, [row for row in rows for _ in (0, 1)])
        try:
            with c.cursor().copy("COPY copied (id) FROM STDIN") as copy:
                copy.write("1\n2\nthree\n")
            raise SystemExit("a bad COPY line was accepted")
        except psycopg.errors.InvalidTextRepresentation as error:
            assert "line 3" in (error.diag.context or ""), error.diag.context
        check("nothing of a bad COPY", c.execute("SELECT count(*) FROM copied").fetchone()[0], 2002)

        # Errors are told apart by their SQLSTATE.
        for sql, kind in (("SELECT * FROM nosuch", psycopg.errors.UndefinedTable), ("SELECT nosuch FROM t", psycopg.errors.UndefinedColumn),
                          ("SELEC 1", psycopg.errors.SyntaxError), ("SELECT 1/0", psycopg.errors.DivisionByZero),
                          ("SELECT 'x'::int", psycopg.errors.InvalidTextRepresentation)):
            try:
                c.execute(sql)
                raise SystemExit(f"{sql} was accepted")
            except kind:
                pass

        # statement_timeout and cancel end the work.
        c.execute("SET statement_timeout = 300")
        slow = "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 100000) AS b(y) WHERE x % 7 = y % 5"
        try:
            c.execute(slow)
            raise SystemExit("statement_timeout did not end the query")
        except psycopg.errors.QueryCanceled:
            pass
        c.execute("SET statement_timeout = 0")
        threading.Timer(0.3, c.cancel).start()
        started = time.monotonic()
        try:
            c.execute(slow)
            raise SystemExit("cancel did not end the query")
        except psycopg.errors.QueryCanceled:
            pass
        assert time.monotonic() - started < 20
        time.sleep(0.3)

        def cpu():
            fields = open(f"/proc/{server.child.pid}/stat").read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        # The work is dropped where it next stands back: soon, not at once.
        for _ in range(20):
            before = cpu()
            time.sleep(1.0)
            if cpu() - before < 20:
                break
        else:
            raise SystemExit("the cancelled query still uses the CPU")

    # A named cursor, and a transaction that fails and goes on after ROLLBACK.
    with psycopg.connect(server.dsn) as c:
        with c.cursor(name="big") as cursor:
            cursor.itersize = 100
            check("cursor", sum(1 for _ in cursor.execute("SELECT id FROM copied")), 2002)
        c.rollback()
        try:
            c.execute("SELECT nosuch")
        except psycopg.Error:
            pass
        try:
            c.execute("SELECT 1")
            raise SystemExit("a failed transaction went on")
        except psycopg.errors.InFailedSqlTransaction:
            pass
        c.rollback()
        check("after rollback", c.execute("SELECT 1").fetchone()[0], 1)
print("psycopg: all checks passed")

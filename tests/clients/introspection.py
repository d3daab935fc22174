"""The introspection statements of BI tools (Metabase, DBeaver, Power BI, Tableau), each through both protocols.

The statements are in `shared/clients/*.sql` beside the checkout (or in $TIDEMILL_TEST_CLIENT_STATEMENTS); without them there is nothing to run.
A comment before each says its name, its tier (1: the tool is useless without it) and what must come:
any (no error), rows (one or more), schema (a row that names our schema), table (a row that names our table).
"""
import glob
import os
import re
import sys

import psycopg

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

SCHEMA, TABLE = "public", "orders"
# What is known not to work, as "tool: name". A statement that fails and is not here fails the test; one that is here and works is said.
KNOWN_GAPS = {
    "tableau: temporary table dropped",
    "tableau: temporary table for a large filter (CREATE LOCAL TEMPORARY TABLE)",
}


def statement_files():
    here = os.path.dirname(os.path.abspath(__file__))
    places = [os.environ.get("TIDEMILL_TEST_CLIENT_STATEMENTS", "")] + [os.path.join(here, up, "shared", "clients") for up in ("../../..", "../../../..")]
    return next((found for found in (sorted(glob.glob(os.path.join(place, "*.sql"))) for place in places if place) if found), [])


def statements(path):
    """(name, tags, SQL) of each statement of a file."""
    for block in re.split(r"^-- name: ", open(path).read(), flags=re.M)[1:]:
        heading, sql = block.split("\n", 1)
        name, *rest = heading.split(" | ")
        # A name may hold a colon, so tags are what follows the first bar.
        tags = dict((part.split(":", 1) + [""])[:2] for part in rest)
        sql = sql.replace(":'schema'", f"'{SCHEMA}'").replace(":'table'", f"'{TABLE}'").replace(":schema", SCHEMA).replace(":table", TABLE)
        yield name.strip(), {key.strip(): value.strip() for key, value in tags.items()}, sql.strip()


def rows_of(cursor):
    rows = []
    while True:
        if cursor.description is not None:
            rows += cursor.fetchall()
        if not cursor.nextset():
            return rows


def problem(connection, tags, sql):
    """What is wrong with the answer to `sql`, or None."""
    ways = (None,) if "multi" in tags else (None, True)
    for prepare in ways:
        try:
            with connection.cursor() as cursor:
                # With `prepare` the extended protocol is used, as JDBC and .NET do; several statements in one string need the simple one.
                if "cursor" in tags.get("needs", "") or prepare is None:
                    cursor.execute(sql)
                else:
                    cursor.execute(sql.rstrip("; \n"), prepare=True)
                rows = rows_of(cursor)
        except psycopg.Error as error:
            if connection.closed:
                raise
            return f"{'extended: ' if prepare else ''}{error.sqlstate} {error}".replace("\n", " ")
        expected = tags["expect"]
        wanted = {"any": None, "rows": None, "schema": SCHEMA, "table": TABLE}[expected]
        if expected != "any" and not rows:
            return "no rows"
        if wanted and not any(wanted in map(str, row) for row in rows):
            return f"no row with {wanted} among {len(rows)}"
    return None


def set_up(connection):
    connection.execute(f"CREATE TABLE {TABLE} (id BIGINT NOT NULL, ts TIMESTAMPTZ NOT NULL, name TEXT, category TEXT DEFAULT 'none', "
                       "price NUMERIC(12,2), qty INT, ratio DOUBLE PRECISION, day DATE, active BOOLEAN, doc JSONB, tags TEXT[])")
    connection.execute(f"""INSERT INTO {TABLE} SELECT i, TIMESTAMPTZ '2026-01-01 00:00:00+00' + i * INTERVAL '5 hours', 'name-' || i,
        CASE i % 3 WHEN 0 THEN 'alpha' WHEN 1 THEN 'beta' END, i * 1.25, i % 5 - 2, i / 3.0, DATE '2026-01-01' + i % 9, i % 2 = 0,
        '{{"i": ' || i || ', "s": "s' || i || '"}}', ARRAY['a', 'b' || i] FROM generate_series(1, 60) AS g(i)""")


files = statement_files()
if not files:
    print("SKIPPED: introspection.py: no statements of BI tools beside this checkout (set TIDEMILL_TEST_CLIENT_STATEMENTS)")
    sys.exit(0)
only = sys.argv[2] if len(sys.argv) > 2 else ""
counts, failures, wrong = {}, [], []
with Server(sys.argv[1]) as server:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        set_up(connection)
        for path in files:
            tool = os.path.basename(path).removesuffix(".sql")
            for name, tags, sql in statements(path):
                key = f"{tool}: {name}"
                if only and only not in key:
                    continue
                found = problem(connection, tags, sql)
                count = counts.setdefault((tool, tags["tier"]), [0, 0])
                count[found is not None] += 1
                if found:
                    failures.append((tags["tier"], key, found))
                    if key not in KNOWN_GAPS:
                        wrong.append(f"{key} (tier {tags['tier']}) fails")
                elif key in KNOWN_GAPS:
                    print(f"NO GAP ANY MORE, take it from KNOWN_GAPS: {key}")
print(f"{'tool':<20} {'tier':>4} {'passed':>7} {'failed':>7}")
for (tool, tier), (passed, failed) in sorted(counts.items()):
    print(f"{tool:<20} {tier:>4} {passed:>7} {failed:>7}")
for tier, key, found in sorted(failures):
    print(f"{'KNOWN GAP' if key in KNOWN_GAPS else 'FAILED'}, tier {tier}: {key}\n    {found[:400]}")
if wrong:
    sys.exit("\n".join(wrong))
print("introspection: nothing but known gaps" if failures else "introspection: all statements answered")

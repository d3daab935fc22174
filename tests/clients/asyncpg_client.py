"""asyncpg: it trusts Describe, speaks binary only, and asks for types by a recursive query."""
import asyncio
import datetime as dt
import sys
import uuid
from decimal import Decimal

import asyncpg

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402


async def main(server):
    pool = await asyncpg.create_pool(server.url, min_size=1, max_size=3)
    async with pool.acquire() as c:
        await c.execute("CREATE TABLE t (id BIGINT, name TEXT, n NUMERIC(12,3), at TIMESTAMPTZ, u UUID, j JSONB, tags TEXT[], d DATE, f DOUBLE PRECISION)")
        at = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, dt.timezone.utc)
        row = (1, "one", Decimal("1.250"), at, uuid.uuid4(), '{"a": 1}', ["x", None], dt.date(2024, 5, 6), 0.1)
        await c.executemany("INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", [row, (2,) + row[1:]])
        got = await c.fetchrow("SELECT * FROM t WHERE id = $1", 1)
        assert tuple(got) == row, (tuple(got), row)
        assert await c.fetchval("SELECT count(*) FROM t WHERE at >= $1 AND n < $2 AND u = $3", at, Decimal("1.251"), row[4]) == 2
        assert await c.fetchval("SELECT count(*) FROM t WHERE id = ANY($1::bigint[])", [1, 2, 3]) == 2
        # Without a cast the parameter has the type of arrays of the column's.
        await c.execute("CREATE TABLE keyed (u uuid, j jsonb)")
        keys = [uuid.uuid4() for _ in range(3)]
        await c.executemany("INSERT INTO keyed VALUES ($1, $2)", [(key, str(place)) for place, key in enumerate(keys)])
        assert await c.fetchval("SELECT count(*) FROM keyed WHERE u = ANY($1)", keys[:2]) == 2
        assert await c.fetchval("SELECT count(*) FROM keyed WHERE u <> ALL($1)", keys[:2]) == 1
        assert await c.fetchval("SELECT count(*) FROM keyed WHERE j = ANY($1)", ["2", "7"]) == 1
        assert await c.fetchval("SELECT sum(id) FROM t") == 3
        records = await c.fetch("SELECT i FROM generate_series(1, 5000) AS g(i) ORDER BY i")
        assert [r["i"] for r in records] == list(range(1, 5001))
        # RETURNING, described before it runs.
        await c.execute("CREATE TABLE returned (id BIGINT, name TEXT DEFAULT 'nameless', price NUMERIC(10,2), u UUID)")
        key = uuid.uuid4()
        made = await c.prepare("INSERT INTO returned (id, price, u) VALUES ($1, $2, $3) RETURNING id, name, price, u, $4::int + 1 AS n")
        assert [a.name for a in made.get_attributes()] == ["id", "name", "price", "u", "n"]
        assert [p.name for p in made.get_parameters()] == ["int8", "numeric", "uuid", "int4"]
        assert [tuple(r) for r in await made.fetch(7, Decimal("2.5"), key, 1)] == [(7, "nameless", Decimal("2.50"), key, 2)]
        assert made.get_statusmsg() == "INSERT 0 1"
        assert await c.fetchval("UPDATE returned SET name = $1 WHERE id = $2 RETURNING upper(name)", "x", 7) == "X"
        assert [tuple(r) for r in await c.fetch("DELETE FROM returned RETURNING u, name")] == [(key, "x")]
        assert await c.execute("TRUNCATE returned") == "TRUNCATE TABLE"
        async with c.transaction():
            seen = 0
            async for _ in c.cursor("SELECT i FROM generate_series(1, 777) AS g(i)", prefetch=50):
                seen += 1
            assert seen == 777
        await c.copy_records_to_table("t", records=[(3,) + row[1:]])
        assert await c.fetchval("SELECT count(*) FROM t") == 3
        try:
            await c.fetch("SELECT * FROM nosuch")
            raise SystemExit("nosuch exists")
        except asyncpg.UndefinedTableError:
            pass
    await pool.close()


with Server(sys.argv[1]) as server:
    asyncio.run(asyncio.wait_for(main(server), 120))
print("asyncpg: all checks passed")

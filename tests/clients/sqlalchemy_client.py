"""SQLAlchemy: the inspector that Superset and pandas stand on, and what Superset sends for time filters."""
import sys

import sqlalchemy as sa

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

with Server(sys.argv[1]) as server:
    for driver in ("psycopg", "psycopg2"):
        engine = sa.create_engine(server.url.replace("postgresql://", f"postgresql+{driver}://"))
        with engine.connect() as c:
            c.execute(sa.text("DROP TABLE IF EXISTS trips"))
            c.execute(sa.text("CREATE TABLE trips (id BIGINT NOT NULL, city TEXT, fare NUMERIC(10,2), at TIMESTAMPTZ, tags TEXT[])"))
            c.execute(sa.text("INSERT INTO trips VALUES (1, 'SF', 10.50, '2024-03-01 12:00:00+00', '{a,b}'), (2, 'LA', 7.25, '2024-03-02 12:00:00+00', NULL)"))
            c.commit()
        inspector = sa.inspect(engine)
        assert "public" in inspector.get_schema_names()
        assert inspector.get_table_names() == ["trips"], inspector.get_table_names()
        assert inspector.get_view_names() == []
        columns = {column["name"]: column for column in inspector.get_columns("trips")}
        assert list(columns) == ["id", "city", "fare", "at", "tags"], list(columns)
        assert isinstance(columns["id"]["type"], sa.BIGINT) and columns["id"]["nullable"] is False
        assert isinstance(columns["fare"]["type"], sa.NUMERIC) and columns["fare"]["type"].scale == 2
        assert columns["at"]["type"].timezone is True
        assert inspector.get_pk_constraint("trips")["constrained_columns"] == []
        assert inspector.get_foreign_keys("trips") == [] and inspector.get_indexes("trips") == []
        assert inspector.get_unique_constraints("trips") == []
        trips = sa.Table("trips", sa.MetaData(), autoload_with=engine)
        with engine.connect() as c:
            rows = c.execute(sa.select(trips.c.city, sa.func.sum(trips.c.fare)).group_by(trips.c.city).order_by(trips.c.city)).all()
            assert [(city, str(fare)) for city, fare in rows] == [("LA", "7.25"), ("SF", "10.50")], rows
            got = c.execute(sa.text(
                "SELECT DATE_TRUNC('hour', at) + INTERVAL '5 minutes' * FLOOR(EXTRACT(MINUTE FROM at) / 5) AS t, count(*) FROM trips "
                "WHERE at >= TO_TIMESTAMP('2024-03-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') "
                "AND at < TO_TIMESTAMP('2024-03-02 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') GROUP BY 1 ORDER BY 1")).all()
            assert len(got) == 1 and got[0][1] == 1, got
        engine.dispose()
print("SQLAlchemy: all checks passed")

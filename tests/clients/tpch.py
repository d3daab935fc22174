"""The 22 queries of TPC-H give the rows that PostgreSQL gives, on made tables of the specification's shape (about scale factor 0.01).

The rows are our own, seeded: dbgen is not at hand offline. Values are picked so that every query finds rows. Needs a PostgreSQL in
TIDEMILL_TEST_POSTGRES (host:port, user postgres), which tests/run starts; without one it is skipped.
"""
import datetime as dt
import os
import random
import re
import sys
from decimal import Decimal

import psycopg

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

TABLES = {
    "region": "r_regionkey INT, r_name TEXT, r_comment TEXT",
    "nation": "n_nationkey INT, n_name TEXT, n_regionkey INT, n_comment TEXT",
    "supplier": "s_suppkey INT, s_name TEXT, s_address TEXT, s_nationkey INT, s_phone TEXT, s_acctbal NUMERIC(15,2), s_comment TEXT",
    "part": "p_partkey INT, p_name TEXT, p_mfgr TEXT, p_brand TEXT, p_type TEXT, p_size INT, p_container TEXT, "
            "p_retailprice NUMERIC(15,2), p_comment TEXT",
    "partsupp": "ps_partkey INT, ps_suppkey INT, ps_availqty INT, ps_supplycost NUMERIC(15,2), ps_comment TEXT",
    "customer": "c_custkey INT, c_name TEXT, c_address TEXT, c_nationkey INT, c_phone TEXT, c_acctbal NUMERIC(15,2), "
                "c_mktsegment TEXT, c_comment TEXT",
    "orders": "o_orderkey INT, o_custkey INT, o_orderstatus TEXT, o_totalprice NUMERIC(15,2), o_orderdate DATE, o_orderpriority TEXT, "
              "o_clerk TEXT, o_shippriority INT, o_comment TEXT",
    "lineitem": "l_orderkey INT, l_partkey INT, l_suppkey INT, l_linenumber INT, l_quantity NUMERIC(15,2), "
                "l_extendedprice NUMERIC(15,2), l_discount NUMERIC(15,2), l_tax NUMERIC(15,2), l_returnflag TEXT, l_linestatus TEXT, "
                "l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct TEXT, l_shipmode TEXT, l_comment TEXT",
}
REGIONS = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"]
NATIONS = [("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3), ("GERMANY", 3),
           ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4), ("KENYA", 0), ("MOROCCO", 0),
           ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3), ("SAUDI ARABIA", 4), ("VIETNAM", 2), ("RUSSIA", 3),
           ("UNITED KINGDOM", 3), ("UNITED STATES", 1)]
COLORS = "almond azure blue forest green ivory khaki lime maroon navy orchid peach red sienna tan white".split()
WORDS = "the quick special packages haggle above Customer pending requests sleep across even Complaints deposits".split()
SUPPLIERS, PARTS, CUSTOMERS, ORDERS = 100, 2000, 1500, 15000


def rows(rng):
    def words():
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 7)))

    def cents(low, high):
        return Decimal(rng.randint(low, high)) / 100

    def phone(nation):
        return f"{nation + 10}-{rng.randint(100, 999)}-{rng.randint(100, 999)}-{rng.randint(1000, 9999)}"

    made = {name: [] for name in TABLES}
    made["region"] = [(key, name, words()) for key, name in enumerate(REGIONS)]
    made["nation"] = [(key, name, region, words()) for key, (name, region) in enumerate(NATIONS)]
    for key in range(1, SUPPLIERS + 1):
        nation = rng.randrange(25)
        made["supplier"].append((key, f"Supplier#{key:09}", words()[:20], nation, phone(nation), cents(-99999, 999999), words()))
    types = [f"{a} {b} {c}" for a in ("STANDARD", "SMALL", "MEDIUM", "LARGE", "ECONOMY", "PROMO")
             for b in ("ANODIZED", "BURNISHED", "PLATED", "POLISHED", "BRUSHED") for c in ("TIN", "NICKEL", "BRASS", "STEEL", "COPPER")]
    containers = [f"{a} {b}" for a in ("SM", "LG", "MED", "JUMBO", "WRAP") for b in ("CASE", "BOX", "BAG", "JAR", "PKG", "PACK", "CAN", "DRUM")]
    price = {}
    for key in range(1, PARTS + 1):
        maker = rng.randint(1, 5)
        price[key] = Decimal(90000 + key % 20001 * 10) / 100
        made["part"].append((key, " ".join(rng.sample(COLORS, 5)), f"Manufacturer#{maker}", f"Brand#{maker}{rng.randint(1, 5)}",
                             rng.choice(types), rng.randint(1, 50), rng.choice(containers), price[key], words()))
        for supplier in suppliers_of(key):
            made["partsupp"].append((key, supplier, rng.randint(1, 9999), cents(100, 100000), words()))
    for key in range(1, CUSTOMERS + 1):
        nation = rng.randrange(25)
        made["customer"].append((key, f"Customer#{key:09}", words()[:20], nation, phone(nation), cents(-99999, 999999),
                                 rng.choice(["AUTOMOBILE", "BUILDING", "FURNITURE", "MACHINERY", "HOUSEHOLD"]), words()))
    first, today = dt.date(1992, 1, 1), dt.date(1995, 6, 17)
    for key in range(1, ORDERS + 1):
        ordered = first + dt.timedelta(days=rng.randrange(2405))
        lines = []
        for number in range(1, rng.randint(1, 7) + 1):
            part = rng.randint(1, PARTS)
            quantity = rng.randint(1, 50)
            shipped = ordered + dt.timedelta(days=rng.randint(1, 121))
            received = shipped + dt.timedelta(days=rng.randint(1, 30))
            lines.append((key, part, rng.choice(suppliers_of(part)), number, Decimal(quantity), quantity * price[part],
                          Decimal(rng.randint(0, 10)) / 100, Decimal(rng.randint(0, 8)) / 100,
                          rng.choice("RA") if received <= today else "N", "O" if shipped > today else "F", shipped,
                          ordered + dt.timedelta(days=rng.randint(30, 90)), received,
                          rng.choice(["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]),
                          rng.choice(["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB", "AIR REG"]), words()))
        status = {line[9] for line in lines}
        total = sum((line[5] * (1 - line[6]) * (1 + line[7]) for line in lines), Decimal(0)).quantize(Decimal("0.01"))
        # A third of the customers never order.
        customer = rng.choice([c for c in (rng.randint(1, CUSTOMERS) for _ in range(9)) if c % 3] or [1])
        made["orders"].append((key, customer, status.pop() if len(status) == 1 else "P", total, ordered,
                               rng.choice(["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"]), f"Clerk#{rng.randint(1, 10):09}",
                               0, words()))
        made["lineitem"] += lines
    return made


def suppliers_of(part):
    return [(part + i * (SUPPLIERS // 4 + (part - 1) // SUPPLIERS)) % SUPPLIERS + 1 for i in range(4)]


def load(connection, made):
    for name, columns in TABLES.items():
        connection.execute(f"CREATE TABLE {name} ({columns})")
        with connection.cursor().copy(f"COPY {name} FROM STDIN") as copy:
            for row in made[name]:
                copy.write_row(row)


def queries():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib", "tpch_queries.sql")) as file:
        return {int(number): text.strip().rstrip(";")
                for number, text in re.findall(r"^-- (\d+)\n(.*?)(?=^-- \d+\n|\Z)", file.read(), re.S | re.M)}


def same(ours, theirs):
    """Exact numbers may show more or fewer digits of a quotient; they must be the same to sixteen."""
    if isinstance(theirs, Decimal) and isinstance(ours, Decimal):
        return ours == theirs or abs(ours - theirs) <= abs(theirs) * Decimal("1e-15")
    return ours == theirs


postgres = os.environ.get("TIDEMILL_TEST_POSTGRES")
if not postgres:
    print("SKIPPED tpch: TIDEMILL_TEST_POSTGRES names no PostgreSQL")
    sys.exit(0)
host, port = postgres.rsplit(":", 1)
made = rows(random.Random(2024))
asked = queries()
assert len(asked) == 22, sorted(asked)
faults, empty = [], []
with Server(sys.argv[1]) as server, psycopg.connect(server.dsn, autocommit=True) as ours, \
        psycopg.connect(f"host={host} port={port} user=postgres dbname=postgres", autocommit=True) as theirs:
    theirs.execute("DROP SCHEMA IF EXISTS tpch CASCADE; CREATE SCHEMA tpch; SET search_path = tpch")
    load(theirs, made)
    theirs.execute("ANALYZE")
    load(ours, made)
    for number, text in asked.items():
        wanted = theirs.execute(text).fetchall()
        if not wanted or wanted == [(None,)]:
            empty.append(number)
        try:
            got = ours.execute(text).fetchall()
        except psycopg.Error as error:
            faults.append(f"query {number}: {error}")
            continue
        if len(got) != len(wanted):
            faults.append(f"query {number}: {len(got)} rows, PostgreSQL gives {len(wanted)}")
            continue
        for row, (a, b) in enumerate(zip(got, wanted)):
            if len(a) != len(b) or not all(same(x, y) for x, y in zip(a, b)):
                faults.append(f"query {number}, row {row}: {a}, PostgreSQL gives {b}")
                break
    theirs.execute("DROP SCHEMA tpch CASCADE")
if empty:
    faults.append(f"the tables leave queries {empty} without rows, so they prove nothing")
if faults:
    raise SystemExit("\n".join(faults))
print(f"the {len(asked)} queries of TPC-H give PostgreSQL's rows")

"""psql: each of its describe commands gets an answer, none an error."""
import os
import subprocess
import sys

sys.path.insert(0, __file__.rsplit("/", 1)[0])
from lib.tidemill import Server  # noqa: E402

COMMANDS = r"""\d \d+ \dS \dt+ \dv+ \di+ \dm \ds \dn+ \l+ \du+ \dg+ \da \df \df+_length \do \dO \dC \dT+ \dD \dL \dd \db \ddp \dp \z \dx \dy \dP
\dRp \dRs \dF \dFd \dFp \dFt \des \det \deu \dew \dew+ \dA \dAc \dAf \dAo \dAp \dX \dconfig \drds \dl \dc \d_orders \d+_orders \d_rt.segments
\conninfo \encoding""".split()

with Server(sys.argv[1]) as server:
    environment = {**os.environ, "PGCONNECT_TIMEOUT": "10"}

    def psql(command):
        return subprocess.run(["psql", "-X", server.url, "-c", command], capture_output=True, text=True, env=environment, timeout=120)

    made = psql("CREATE TABLE orders (id BIGINT NOT NULL, city TEXT, ts TIMESTAMPTZ)")
    assert made.returncode == 0, made.stderr
    answers = {}
    for command in (command.replace("_", " ", 1) for command in COMMANDS):
        done = psql(command)
        assert "ERROR" not in done.stderr, f"{command}: {done.stderr}"
        answers[command] = done.stdout
    assert "orders" in answers[r"\d"] and "timestamp with time zone" in answers[r"\d orders"], answers[r"\d orders"]
    assert "length" in answers[r"\df+ length"] and "tidemill" in answers[r"\du+"]
    print(f"psql: {len(answers)} commands answered")

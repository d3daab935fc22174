"""The Python that the comparisons run in: a virtual environment of their own with the peers from PyPI, made at the first run."""
import argparse
import os
import pathlib
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent.parent
cache = pathlib.Path(os.environ.get("TIDEMILL_CACHE", pathlib.Path.home() / ".cache/tidemill"))
venv = cache / "peers"
PACKAGES = ["duckdb", "datafusion", "pyarrow", "psycopg[binary]", "pytz", "chdb"]


def arguments(doc, folder):
    """What both comparisons take; `add_argument` the size, then `parse_args`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="runs of a query, of which the median counts")
    parser.add_argument("--server", default=str(root / "target/release/tidemill"))
    parser.add_argument("--folder", default=folder, help="for the Parquet file and ClickHouse's parts")
    parser.add_argument("--without", action="append", default=[], help="leave a peer out: clickhouse, duckdb, datafusion")
    return parser


def enter():
    """Runs the script again inside of the environment unless it is there already."""
    made = venv / ("has-" + "-".join(package.split("[")[0] for package in PACKAGES))
    if not made.exists():
        print(f"fetching {', '.join(PACKAGES)} into {venv} …", flush=True)
        if not (venv / "bin/python").exists():
            subprocess.check_call([sys.executable, "-m", "venv", venv])
        subprocess.check_call([venv / "bin/python", "-m", "pip", "install", "-q", *PACKAGES])
        made.touch()
    if pathlib.Path(sys.prefix) != venv:
        os.execv(venv / "bin/python", [str(venv / "bin/python"), *sys.argv])
    sys.path.insert(0, str(root / "tests/clients"))

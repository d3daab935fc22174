"""The Python that the comparisons run in: a virtual environment of their own with the peers from PyPI, made at the first run."""
import os
import pathlib
import subprocess
import sys

root = pathlib.Path(__file__).resolve().parent.parent.parent
cache = pathlib.Path(os.environ.get("TIDEMILL_CACHE", pathlib.Path.home() / ".cache/tidemill"))
venv = cache / "peers"
PACKAGES = ["duckdb", "datafusion", "pyarrow", "psycopg[binary]", "pytz", "chdb"]


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

"""A few hundred mutated annotation files and pictures; `benchmarks/fuzz_data.py` runs any number of them."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_data.py"


def test_mutated_data_never_crash(tmp_path):
    """No traceback, no death by a signal, no hang, no memory beyond 4 GB, nothing lost without a word."""
    command = [sys.executable, SCRIPT, "--json", "250", "--pictures", "150", "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"(\w+): (\d+) cases, crashes 0, peak \d+ MiB \((.*)\)", done.stdout)
    assert [(kind, count) for kind, count, _ in found] == [("json", "250"), ("picture", "150")]
    # Both outcomes occur: the mutations are neither harmless nor all deadly.
    assert "report:" in found[0][2] and "one line:" in found[0][2]
    assert "picture:" in found[1][2] and "one line:" in found[1][2]

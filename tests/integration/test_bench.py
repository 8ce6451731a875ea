"""The bench, for a moment: it runs to its end, without an error, and tells every figure."""

import re
import subprocess

from harness import BUILD, REPOSITORY

ROWS = ("registers", "heartbeats", "own records", "full handshakes", "resumed handshakes")


def test_the_bench_runs_without_an_error():
    words = [REPOSITORY / "tests" / "bench" / "run", "--build", BUILD, "--seconds", "0.2", "--rounds", "1",
             "--connections", "1", "8"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ROWS:
        for connections in (1, 8):
            row = re.search(rf"(?m)^{name} +{connections} +(.*)$", done.stdout)
            assert row, f"no row of {name} at {connections} in:\n{done.stdout}"
            figures = [float(figure) for figure in row[1].replace("*", "").split()]
            assert len(figures) == 11 and all(figure >= 0 for figure in figures) and min(figures[:3]) > 0, row[0]
    assert "\n0 errors.\n" in done.stdout

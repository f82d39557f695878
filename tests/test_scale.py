"""What a large day costs. PIPELINE_SCALE=1000000 runs it in full size; the default is small."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from conftest import query, run

SCALE = int(os.environ.get("PIPELINE_SCALE", "40000"))

MEASURE = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
print(code, peak)
"""


def measure_load(records: int, part_records: int) -> float:
    """Peak resident size, in MiB, of the largest process of a run that loads a day of so many demo users."""
    shutil.rmtree("data", ignore_errors=True)
    url = f"demo://users?updated_since={{day_start}}&updated_before={{day_stop}}&per_day={records}&per_page=10000"
    flags = ("--users-url", url, "--pipeline-part-records", str(part_records))
    luigi = str(Path(sys.executable).with_name("luigi"))
    measured = run("python", "-c", MEASURE, luigi, "--module", "pipeline", "LoadUsers", "--date", "2026-11-20", *flags)
    code, peak = measured.stdout.split()
    assert code == "0", measured.stderr
    ((extracted,),) = query("select extracted from loads")
    assert extracted == pytest.approx(records, rel=0.01)
    return float(peak)


@pytest.mark.timeout(1200)
def test_memory_is_bounded_by_a_part_and_not_by_a_day():
    """Four times the records, the same memory but for a seventh; below 400 MiB."""
    part_records = min(25_000, SCALE // 16)
    quarter, whole = (measure_load(records, part_records) for records in (SCALE // 4, SCALE))
    print(f"peak resident size: {quarter:.0f} MiB at {SCALE // 4:,}, {whole:.0f} MiB at {SCALE:,}")
    assert whole <= 1.15 * quarter
    assert whole < 400

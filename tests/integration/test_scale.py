"""The memory of a large day. PIPELINE_SCALE=1000000 runs the full size. The default is small."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run import Watch
from tests.support.project import query

pytestmark = pytest.mark.slow

SCALE = int(os.environ.get("PIPELINE_SCALE", "40000"))


def measure_load(records: int, part_records: int) -> float:
    """Load a day of `records` demo users. Return the peak memory of all processes in MiB."""
    shutil.rmtree("data", ignore_errors=True)
    url = f"demo://users?updated_since={{day_start}}&updated_before={{day_stop}}&per_day={records}&per_page=10000"
    flags = ("--users-url", url, "--pipeline-part-records", str(part_records), "--pipeline-engine-workers", "2")
    luigi = str(Path(sys.executable).with_name("luigi"))
    with Path("output").open("w+") as output:
        command = [luigi, "--module", "pipeline", "LoadUsers", "--date", "2026-11-20", *flags]
        process = subprocess.Popen(command, stdout=output, stderr=output)
        watch = Watch(process.pid)
        code = process.wait()
        watch.stop()
    assert code == 0, Path("output").read_text()
    ((extracted,),) = query("select extracted from loads")
    assert extracted == pytest.approx(records, rel=0.01)
    return watch.peak / 2**20


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what processes share")
def test_memory_is_bounded_by_part_size():
    """Four times the records need at most ten percent more memory, and less than 350 MiB including workers."""
    part_records = min(16_000, SCALE // 32)
    quarter, whole = (measure_load(records, part_records) for records in (SCALE // 4, SCALE))
    print(f"all processes: {quarter:.0f} MiB at {SCALE // 4:,}, {whole:.0f} MiB at {SCALE:,}")
    assert whole <= 1.1 * quarter
    assert whole < 350

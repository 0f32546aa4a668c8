"""Thousands of records: every page stays small, and they are not all held whole at once."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

from suite.results.records.reading import record_bytes
from suite.results.records.record import Record, SideFile
from tests.reports.synthetic_site import DENSE_NLL, dense_record, items_of, site_record
from tests.reports.test_site import Page

N_METHODS, N_MODELS = 100, 20
LIMIT_MIB = 600
BUILD = """
import re, sys
from pathlib import Path
from reports.site import build_site
built = build_site([Path(sys.argv[1])], Path(sys.argv[2]), title="Many")
# Of this program alone: what getrusage says includes the process that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(built.n_records, int(peak[1]) // 1024)
"""


def put(root: Path, record: Record, items: bytes) -> None:
    """As the store does, without waiting for the disk."""
    folder = root / record.cell.folder
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{record.cell.stem}.00000000.samples.parquet"
    (folder / name).write_bytes(items)
    side_file = SideFile(name=name, sha256=hashlib.sha256(items).hexdigest(), rows=len(DENSE_NLL))
    sealed = record.model_copy(update={"side_file": side_file}).sealed()
    (folder / f"{record.cell.stem}.json").write_bytes(record_bytes(sealed))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak of memory")
def test_two_thousand_records_make_small_pages_in_reasonable_memory(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    items_of(dense_record()).to_parquet(buffer, index=False)
    for number in range(N_MODELS):
        model = f"model-{number}"
        put(tmp_path / "results", dense_record(model), buffer.getvalue())
        pruned = site_record("method", model, nll=DENSE_NLL, n_modules=1)
        for method in range(N_METHODS - 1):
            cell = pruned.cell.model_copy(update={"method": f"method-{method}"})
            put(tmp_path / "results", pruned.model_copy(update={"cell": cell}), buffer.getvalue())
    site = tmp_path / "site"
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "results"), str(site)],
        capture_output=True,
        text=True,
        check=True,
    )
    n_records, peak = map(int, done.stdout.split())
    assert n_records == N_METHODS * N_MODELS
    assert peak < LIMIT_MIB
    sizes = {path: path.stat().st_size for path in site.rglob("*.html")}
    assert max(sizes.values()) < 400_000
    assert len(list((site / "records").glob("index*.html"))) == 10
    last = Page(site / "records" / "index_p10.html")
    assert "rows 1,801 to 2,000 of 2,000" in last.text

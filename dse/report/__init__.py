"""What does this Dataset say? Report page, tables, terminal summary and exports: pure functions of a result.

Imports neither JAX nor the equations, the catalogue, a clock or the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


def write_report(ds: xr.Dataset, out_dir: str | Path) -> Path:
    """Write ``report.html``, ``designs.csv``, ``figures/*.svg`` with a CSV each, and ``figures/headline.png``; return the page's path.

    A study of claims has ``claims.csv`` instead of ``designs.csv``. The same Dataset gives the same bytes.
    """
    from dse.report import build, claims, first, page
    from dse.report.export import write_designs_csv

    out = Path(out_dir)
    is_claims = ds.attrs.get("kind") == "claims"
    text, files = claims.build(ds) if is_claims else build.build(ds)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    (out / "figures" / first.NAME).unlink(missing_ok=True)  # the picture of a search that was under way
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        (out / name).write_bytes(data)
    if is_claims:
        (out / "claims.csv").write_text(page.csv_text(claims.rows(ds)), encoding="utf-8", newline="\n")
    else:
        write_designs_csv(ds, out / "designs.csv")
    path = out / "report.html"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path

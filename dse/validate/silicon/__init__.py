"""Do the silicon and money equations rebuild real chips from their published design variables, with constants that no chip owns?

``tables`` computes one table for each question; ``write`` puts them into a folder as Markdown and CSV. Facts come from
``hw_catalog/rebuild`` (design variables) and ``hw_catalog/chips`` (published results), each with its source.
"""

from __future__ import annotations

from dse.validate.silicon.tables import tables
from dse.validate.silicon.write import as_json, markdown, write

__all__ = ["as_json", "markdown", "tables", "write"]

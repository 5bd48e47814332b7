"""Where do the catalogue and the shipped studies lie: beside the package in a checkout, or inside it in an installed wheel?"""

from __future__ import annotations

from pathlib import Path

from dse.errors import InputError, closest

PACKAGE = Path(__file__).resolve().parent
DATA_DIRS = ("hw_catalog", "studies")


def data_dir(name: str) -> Path:
    """Return the folder ``hw_catalog`` or ``studies`` that belongs to this package.

    Raises:
        InputError: the name is another one, or the folder lies in neither place.

    >>> data_dir("hw_catalogue")
    Traceback (most recent call last):
    dse.errors.InputError: data folder — found 'hw_catalogue', allowed hw_catalog, studies; did you mean 'hw_catalog'?
    """
    if name not in DATA_DIRS:
        raise InputError(f"data folder — found {name!r}, allowed {', '.join(DATA_DIRS)}{closest(name, DATA_DIRS)}")
    places = (PACKAGE / "_data" / name, PACKAGE.parent / name)  # the wheel first: beside it lie other people's packages
    for place in places:
        if place.is_dir():
            return place
    raise InputError(f"{name} — not found in {places[0]} nor in {places[1]}; install dse again")

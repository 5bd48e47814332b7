"""How is JAX set up here? 64-bit mode, and compiled functions kept in the user's cache directory.

Importing this module is enough; ``dse.types`` does it first of all, and every room that computes imports ``dse.types``.
``DSE_CACHE_DIR`` names another directory; set to nothing it switches the cache off. A directory that JAX was given already stays.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jax

CACHE_VARIABLE = "DSE_CACHE_DIR"


def cache_dir(environ: dict[str, str] | None = None, platform: str = sys.platform) -> Path | None:
    """Return the folder of compiled functions by the rules of the platform, or ``None`` where it is switched off.

    >>> cache_dir({"HOME": "/h", "XDG_CACHE_HOME": "/h/c"}, "linux").as_posix()
    '/h/c/dse/jax'
    >>> cache_dir({"HOME": "/h", "DSE_CACHE_DIR": ""}, "linux") is None
    True
    """
    env = dict(os.environ) if environ is None else environ
    if CACHE_VARIABLE in env:
        return Path(env[CACHE_VARIABLE]) if env[CACHE_VARIABLE] else None
    home = env.get("HOME") or env.get("USERPROFILE")
    if not home:
        return None
    if platform == "darwin":
        base = Path(home, "Library", "Caches")
    elif platform.startswith("win"):
        base = Path(env.get("LOCALAPPDATA") or Path(home, "AppData", "Local"))
    else:
        base = Path(env.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    return base / "dse" / "jax"


def writable(folder: Path) -> bool:
    """Return whether a file can be written in ``folder``, which is made if need be; ``False`` on a read-only or full disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"dse")
    except OSError:
        return False
    return True


def setup() -> None:
    """Switch on 64-bit mode and the persistent compilation cache. Calling it again changes nothing."""
    jax.config.update("jax_enable_x64", True)
    if getattr(jax.config, "jax_compilation_cache_dir", None) is not None:
        return
    folder = cache_dir()
    if folder is None or not writable(folder):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # all compiled functions, also the quick ones
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)  # and the small ones


setup()

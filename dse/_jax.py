"""How is JAX set up here? 64-bit mode, and compiled functions kept in the user's cache directory.

Importing this module is enough; ``dse.types`` does it first of all, and every room that computes imports ``dse.types``.
``DSE_CACHE_DIR`` names another directory; set to nothing it switches the cache off. A directory that JAX was given already stays.
"""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

CACHE_VARIABLE = "DSE_CACHE_DIR"
# Without optimisation and with XLA's older emitters of loops, the same operations are compiled in a fourth of the time. What is called some
# hundred times on a block, or is mostly set-up, gains by it; a call on large arrays takes twice the time.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
if version("jaxlib").startswith("0.10."):  # which has both
    QUICK["xla_cpu_use_fusion_emitters"] = False


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


def quickly(function: Callable, static_argnums: tuple[int, ...] = (), most: float = float("inf")) -> Callable:
    """Jitted, and compiled with ``QUICK``; as usual inside another transformation, or where a leaf has more than ``most`` elements.

    >>> double = quickly(lambda x: 2.0 * x)
    >>> float(double(3.0)), float(jax.grad(double)(3.0)), float(jax.jit(lambda y: double(1.0) + y)(1.0))
    (6.0, 2.0, 3.0)
    """
    usual = jax.jit(function, static_argnums=static_argnums)
    quick = jax.jit(function, static_argnums=static_argnums, compiler_options=QUICK)

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        if any(isinstance(x, jax.core.Tracer) or getattr(x, "size", 1) > most for x in leaves):
            return usual(*arguments)
        with jax.ensure_compile_time_eval():  # of constants, whatever is traced around
            return quick(*arguments)

    return call


setup()

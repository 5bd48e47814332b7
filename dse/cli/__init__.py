"""What did the user ask? The command ``dse``: reads arguments, calls the rooms below, prints the product, sets the exit code.

Exit codes: 0 ok, 1 the run failed, 2 bad input or usage, 3 nothing feasible, 130 interrupted. Heavy imports happen inside commands.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from dse.cli import analysis, bench, catalogue, certificates, measurements, predict, results, studies, worker
from dse.cli.common import INTERRUPTED, print_json, say
from dse.errors import DseError, InputError

USAGE = 2
app = typer.Typer(
    name="dse",
    help="Design-space explorer for LLM-inference hardware: speed, power and cost of a token, on chips that exist and chips that could.",
    epilog="Example: dse eval --chip nvidia-h100-sxm --model llama-3-70b --isl 1024 --osl 1024 --tp 8 --batch 64",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for module in (studies, analysis, certificates, predict, measurements, results, bench, worker):
    module.register(app)
app.add_typer(catalogue.app, name="catalog")


def _print_version(asked: bool) -> None:
    if asked:
        import dse

        print(f"dse {dse.__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the command itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Every error becomes a line on stderr (with ``--json`` an object on stdout too)."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(asked)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  stays open until the interpreter flushes it
        return 1


def _run(asked: Sequence[str]) -> int:
    try:
        code = app(args=list(asked), prog_name="dse", standalone_mode=False)
    except DseError as error:
        return _failed(asked, type(error).__name__, _lines(error), error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if hasattr(error, "format_message"):  # usage: raised by the parser of arguments
            return _failed(asked, "UsageError", _usage(error), USAGE)
        if os.environ.get("DSE_DEBUG"):
            raise
        line = f"{type(error).__name__}: {error}".strip()
        return _failed(asked, type(error).__name__, [line, "DSE_DEBUG=1 shows the traceback"], 1)
    if code == INTERRUPTED:
        say("interrupted")
    return code if isinstance(code, int) else 0


def _lines(error: DseError) -> list[str]:
    """The problems of an error; a field that was found and is wrong is not reported as missing too."""
    if not isinstance(error, InputError):
        return str(error).splitlines()
    wrong = {line.partition(" — ")[0] for line in error.problems if not line.partition(" — ")[2].startswith("found nothing")}
    return [line for line in error.problems if line.partition(" — ")[0] not in wrong or " — found nothing" not in line]


def _usage(error: Any) -> list[str]:
    path = error.ctx.command_path if getattr(error, "ctx", None) else "dse"
    return [line for line in error.format_message().splitlines() if line.strip()] + [f"'{path} --help' shows what is allowed"]


def _failed(asked: Sequence[str], kind: str, lines: list[str], code: int) -> int:
    for line in lines:
        say(line)
    if "--json" in asked:
        print_json({"error": {"type": kind, "message": lines[0] if lines else kind, "problems": lines, "exit_code": code}})
    return code

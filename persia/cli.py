"""The `persia` command: its verbs and their options.

A verb imports what it needs when it is called, so that `persia check` does not wait for what only a report needs.
Data goes to stdout, progress and complaints to stderr; `persia.commands.exits` lists the exit codes.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer

from persia import __version__
from persia.commands.exits import ExitCode, hush_stdout, note

EXIT_CODES = """Exit codes: 0 done; 1 a validation failed; 2 wrong usage or scenario (file:line:column); 3 infeasible, with the reasons;
4 the environment (a missing package, a folder that cannot be written to); 130 interrupted, leaving a valid partial run directory."""

app = typer.Typer(
    name="persia",
    help="Plan and simulate the training of recommendation models with up to 100 trillion parameters.",
    epilog=EXIT_CODES,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Both would take longer than checking a scenario does: looking for plugins of pydantic, which persia has none of, and
# starting numpy's pool of linear-algebra threads, which a simulation never uses.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Imports make a great many objects and hardly any garbage: look for it a hundred times less often than Python does.
GARBAGE_THRESHOLD = 70_000

OWN_PACKAGES = ("persia", "reports", "scenarios", "simulator")

P = ParamSpec("P")
Source = Annotated[str, typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a packaged scenario such as persia-100t.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the scenario; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random stream; the same seed gives the same digest.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps to simulate; without it, until the interval is narrow enough.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The run directory to make; without it runs/NAME-001, -002, ...")]


def verb(action: Callable[P, ExitCode]) -> Callable[P, None]:
    """Register a verb whose exceptions become exit codes."""

    @functools.wraps(action)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_exit_code(lambda: action(*args, **kwargs)))

    app.command()(run)
    return run


def _exit_code(action: Callable[[], ExitCode]) -> ExitCode:
    try:
        code = action()
        sys.stdout.flush()
    except KeyboardInterrupt:
        note("persia: interrupted.")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        hush_stdout()
        return ExitCode.BROKEN_PIPE
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OWN_PACKAGES:
            raise
        note(f"persia: the package {error.name!r} is not installed. `persia doctor` lists what is missing.")
        return ExitCode.ENVIRONMENT
    except Exception as error:
        from persia.commands.failures import report_failure

        return report_failure(error)
    return code


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False) -> None:
    """Plan and simulate the training of recommendation models with up to 100 trillion parameters."""
    if version:
        sys.stdout.write(f"persia {__version__}\n")
        raise typer.Exit(ExitCode.OK)


@verb
def demo(seed: Seed = None, steps: Steps = None, out: Out = None, as_json: AsJson = False) -> ExitCode:
    """Simulate the published 100-trillion-parameter cluster in its four modes and write the report."""
    from persia.commands import demo as command

    return command.run(seed=seed, steps=steps, out=out, as_json=as_json)


@verb
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("scenario.yaml"),
    base: Annotated[str, typer.Option("--from", metavar="NAME", help="The packaged scenario that it extends.")] = "persia-100t",
) -> ExitCode:
    """Write a commented scenario to start from; an existing file is left alone."""
    from persia.commands import init as command

    return command.run(path=path, base=base)


@verb
def check(source: Source, overrides: Overrides = None, as_json: AsJson = False) -> ExitCode:
    """Say whether a scenario is valid, fits in memory, what it costs an hour, and what its machines could reach at most."""
    from persia.commands import check as command

    return command.run(source=source, overrides=overrides or (), as_json=as_json)


@verb
def simulate(
    source: Source,
    overrides: Overrides = None,
    steps: Steps = None,
    seed: Seed = None,
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="simpy|heapq", help="What runs the events; both give the same digest.")
    ] = None,
    fidelity: Annotated[
        str | None, typer.Option("--fidelity", metavar="phase|message", help="An event a phase, or an event a message.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Write the page and its figures into a run directory.")] = False,
    out: Out = None,
    trace: Annotated[bool, typer.Option("--trace", help="Write the timeline for Perfetto too, into a run directory.")] = False,
    check_invariants: Annotated[bool, typer.Option("--check", help="Check the schedules' invariants at every event (slower).")] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Simulate a scenario: throughput, staleness, bottleneck, memory and price."""
    from persia.commands import simulate as command

    fields = {"simulation.steps": steps, "simulation.seed": seed, "simulation.engine": engine, "simulation.fidelity": fidelity}
    options = [f"{path}={value}" for path, value in fields.items() if value is not None]
    return command.run(
        source=source,
        overrides=[*(overrides or ()), *options],
        report=report,
        out=out,
        trace=trace,
        check_invariants=check_invariants,
        as_json=as_json,
    )


@verb
def train(
    source: Annotated[str | None, typer.Argument(metavar="SCENARIO", help="A YAML file, or the name of a packaged scenario.")] = None,
    overrides: Overrides = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Steps to train; without it, as many as the scenario's samples make.")
    ] = None,
    seed: Seed = None,
    scale: Annotated[str | None, typer.Option("--scale", metavar="laptop", help="Train a small scenario derived from this one.")] = None,
    resume: Annotated[Path | None, typer.Option("--resume", metavar="DIR", help="Go on with this run from its last checkpoint.")] = None,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where the dense network is trained.")] = "cpu",
    compress: Annotated[bool, typer.Option("--lz4", help="Compress what travels between processes.")] = False,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write the trained model when the run ends.")] = True,
    rendezvous: Annotated[
        str | None, typer.Option("--rendezvous", metavar="HOST:PORT", help="Host a rendezvous there, so that other hosts may take part.")
    ] = None,
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="With --rendezvous: where others reach this host.")] = "127.0.0.1",
    elsewhere: Annotated[
        list[str] | None, typer.Option("--elsewhere", metavar="ROLE:INDEX", help="A process that `persia node` starts; may be repeated.")
    ] = None,
    out: Out = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Train a scenario for real on this machine, with the simulator's scheduling code."""
    from persia.commands import train as command

    return command.run(
        source=source,
        overrides=[*(overrides or ()), *([] if seed is None else [f"simulation.seed={seed}"])],
        steps=steps,
        scale=scale,
        resume=resume,
        out=out,
        device=device,
        compress=compress,
        save=save,
        rendezvous=rendezvous,
        bind=bind,
        elsewhere=elsewhere or (),
        as_json=as_json,
    )


@verb
def replay(
    place: Annotated[
        Path, typer.Argument(metavar="LOGDIR", help="The directory of a simulated or a real run, a folder of its logs, or one log.")
    ],
    as_json: AsJson = False,
) -> ExitCode:
    """Feed a run's event logs to the scheduling code again; exit 1 where it would decide otherwise."""
    from persia.commands import replay as command

    return command.run(place=place, as_json=as_json)


@verb
def trace(
    place: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a simulated or a real run.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The file to write; it must not exist.")] = Path("trace.json"),
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="Which attempt of a real run; without it, the last.")
    ] = None,
) -> ExitCode:
    """Write a run's timeline for Perfetto (https://ui.perfetto.dev)."""
    from persia.commands import trace as command

    return command.run(place=place, out=out, attempt=attempt)


@verb
def calibrate(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where the profile goes; by default this user's cache.")] = None,
    batch_sizes: Annotated[str | None, typer.Option("--batch-sizes", metavar="N,...", help="Measure only these batch sizes.")] = None,
    add: Annotated[
        bool, typer.Option("--add", help="Keep what earlier calibrations have measured, and measure batches of other shapes.")
    ] = False,
    as_json: AsJson = False,
) -> ExitCode:
    """Measure this machine, in under three minutes, and write the profile from which `validate` and `simulate` predict it."""
    from persia.commands import calibrate as command

    return command.run(out=out, as_json=as_json, batch_sizes=command.read_batch_sizes(batch_sizes), add=add)


@verb
def node(
    source: Source,
    role: Annotated[str, typer.Option("--role", metavar="ROLE", help="loader, embedding-worker, parameter-server or nn-worker.")],
    rendezvous: Annotated[str, typer.Option("--rendezvous", metavar="HOST:PORT", help="Where `persia train --rendezvous` waits.")],
    index: Annotated[int, typer.Option("--index", min=0, help="Which process of the role, from 0.")] = 0,
    bind: Annotated[str, typer.Option("--bind", metavar="ADDRESS", help="The address at which others reach this process.")] = "127.0.0.1",
    out: Out = None,
) -> ExitCode:
    """Take part, as one role, in a run that spans hosts or network namespaces."""
    from persia.commands import node as command

    return command.run(source=source, role=role, index=index, rendezvous=rendezvous, bind=bind, out=out)


@verb
def validate(
    sources: Annotated[list[str] | None, typer.Argument(metavar="SCENARIO...", help="Scenarios to run in both worlds.")] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Run the packaged grid of cases in both worlds.")] = False,
    random: Annotated[int | None, typer.Option("--random", metavar="N", help="Run N cases drawn from the grid's space.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Compare with the published throughput of the original system.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the draw; without it one is chosen and printed.")] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", metavar="NAME|FILE", help="What predicts; without it, what `persia calibrate` measured here.")
    ] = None,
    only: Annotated[str | None, typer.Option("--only", metavar="NAME,...", help="Only these cases.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", help="Measure a case for at most so many seconds of training.")] = 9.0,
    target: Annotated[
        float, typer.Option("--target", metavar="PCT", help="Stop when the 95 % interval is within so many per cent of the mean.")
    ] = 3.0,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Run a case at least so often.")] = 3,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where the dense network is trained.")] = "cpu",
    overrides: Overrides = None,
    report: Annotated[bool, typer.Option("--report", help="Write the page and its figures into a run directory.")] = False,
    again: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Run nothing: take the result.json of an earlier validation; with --profile, predict anew."
        ),
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Predict again with each piece of physics left out: what it is worth.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Use a profile that was measured on another machine.")] = False,
    out: Out = None,
    as_json: AsJson = False,
) -> ExitCode:
    """Compare predictions with what is measured here, or with what was published; exit 1 where one is too far off."""
    if published:
        if sources or grid or random is not None:
            note("persia: --published runs nothing here: give it alone.")
            return ExitCode.USAGE
        from persia.commands import published as rows

        return rows.run(as_json=as_json)
    from persia.commands import validate as command
    from persia.commands.validation import Limits

    return command.run(
        command.Asked(
            sources=sources or (),
            grid=grid,
            random=random,
            seed=seed,
            profile=profile,
            only=only,
            limits=Limits(seconds=seconds, repeats=repeats, target=target / 100.0),
            device=device,
            overrides=overrides or (),
            report=report,
            again=again,
            ablation=ablation,
            force=force,
            out=out,
            as_json=as_json,
        )
    )


@verb
def catalog(
    family: Annotated[str | None, typer.Option("--family", metavar="NAME", help="Only this machine family, such as m2.")] = None,
    as_json: AsJson = False,
) -> ExitCode:
    """List the machine types with what they hold and cost, and where that is from."""
    from persia.commands import catalog as command

    return command.run(family=family, as_json=as_json)


@verb
def doctor(as_json: AsJson = False) -> ExitCode:
    """Say whether this machine has what persia needs."""
    from persia.commands import doctor as command

    return command.run(as_json=as_json)


@verb
def schema() -> ExitCode:
    """Print the JSON Schema of a scenario, for editors and checkers."""
    from persia.commands import schema as command

    return command.run()


def main() -> None:
    """Run the command and exit with its code."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    main()

"""`persia train`: one scenario for real, on this machine, into a run directory; or further, from its last checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from persia.commands.emulation import emulated_dense
from persia.commands.exits import ExitCode, Failure, note
from persia.commands.output import print_json, print_text
from persia.commands.roles import remote_role
from persia.commands.run_directory import RunDirectory
from persia.commands.simulate import command_line, resolved_yaml
from persia.commands.training import log_digest, result_json, summary
from persia.runtime import coordinator
from persia.runtime.checkpoint import CheckpointError, check_matches, latest
from persia.runtime.coordinator import Options, Outcome, RunFailed
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import make_plan
from persia.runtime.tables import room_for_tables
from persia.scenario import Scenario, load_scenario
from persia.scenario.scale import scale_down

DEVICES = ("cpu", "cuda")


def run(
    *,
    source: str | None,
    overrides: Sequence[str],
    steps: int | None,
    scale: str | None,
    resume: Path | None,
    out: Path | None,
    device: str,
    compress: bool,
    save: bool,
    rendezvous: str | None,
    bind: str,
    elsewhere: Sequence[str],
    as_json: bool,
) -> ExitCode:
    """Train and print; with `resume` the run directory goes on where its last checkpoint was cut."""
    if device not in DEVICES:
        raise Failure(ExitCode.USAGE, f"--device {device}: expected {' or '.join(DEVICES)}.")
    remote = frozenset(map(remote_role, elsewhere))
    if remote and rendezvous is None:
        raise Failure(ExitCode.USAGE, "--elsewhere without --rendezvous HOST:PORT: say where the processes elsewhere find this run.")
    scenario = _scenario(source, overrides, scale, resume)
    if steps is not None:
        workload = scenario.workload.model_copy(update={"samples": steps * scenario.ranks * scenario.workload.batch_size})
        scenario = scenario.model_copy(update={"workload": workload})
    emulated = emulated_dense(scenario)
    options = Options(device=device, compress=compress, save=save, rendezvous=rendezvous, bind=bind, remote=remote, emulated=emulated)
    _check_machine(scenario, options)
    if emulated is not None:
        note(f"Emulated {emulated.accelerator}: a step waits {emulated.step_s * 1e3:.3f} ms instead of computing ({emulated.source}).")
    directory = _reopen(resume, scenario) if resume else RunDirectory.create(out, name=scenario.name, command=command_line())
    with Interrupts(ends_process=True) as interrupts, directory:
        directory.write_text("scenario.yaml", resolved_yaml(scenario))
        try:
            with _bar(scenario.name) as show:
                outcome = coordinator.run(scenario, directory.path, options=options, progress=show, interrupts=interrupts)
        except (RunFailed, CheckpointError) as error:
            mistake = isinstance(error, CheckpointError) or error.mistake
            raise Failure(ExitCode.USAGE if mistake else ExitCode.ENVIRONMENT, str(error)) from error
        result = _finish(directory, scenario, outcome)
    if as_json:
        print_json(result)
    else:
        print_text("\n".join(summary(result)))
    note(f"The run is in {directory.path}")
    return ExitCode.OK


def _scenario(source: str | None, overrides: Sequence[str], scale: str | None, resume: Path | None) -> Scenario:
    """Load what is asked for: the scenario, the small one derived from it, or that of the run to resume."""
    if source is None:
        if resume is None:
            raise Failure(
                ExitCode.USAGE, "no scenario. Name a YAML file or a packaged scenario such as planted-small, or give --resume DIR."
            )
        source = str(resume / "scenario.yaml")
    scenario = load_scenario(source, overrides)
    if scale is None:
        return scenario
    scaled = scale_down(scenario, scale)
    for rule in scaled.rules:
        note(f"--scale {scale}: {rule}")
    return scaled.scenario


def _check_machine(scenario: Scenario, options: Options) -> None:
    """Refuse at once what could only fail later."""
    if options.device == "cuda" and options.emulated is not None:
        raise Failure(ExitCode.USAGE, "--device cuda with simulation.emulated_accelerator: emulated ranks compute nothing.")
    if options.device == "cuda":
        from persia.runtime.rendezvous import cuda_devices

        if not cuda_devices():
            raise Failure(ExitCode.ENVIRONMENT, "--device cuda: torch sees no CUDA device here. Leave the option out to train on the CPU.")
    needed, free = room_for_tables(make_plan(scenario))
    if needed > free:
        raise Failure(
            ExitCode.INFEASIBLE,
            f"the tables of {scenario.name} may grow to {needed / 1e9:.1f} GB, and this machine has {free / 1e9:.1f} GB of memory free. "
            "Lower model.features[].rows (or set resident_rows), or use --scale laptop.",
        )


def _reopen(resume: Path, scenario: Scenario) -> RunDirectory:
    if not (resume / "run.json").is_file():
        raise Failure(
            ExitCode.USAGE, f"{resume} is not a run directory: it holds no run.json. Give the directory of an earlier `persia train`."
        )
    if (resume / "result.json").exists():
        raise Failure(ExitCode.USAGE, f"{resume} holds a complete run: there is nothing to resume. Start a new one without --resume.")
    try:
        coordinator.check_free(resume)
        checkpoint = latest(resume / "checkpoints")
        if checkpoint is not None:  # refused before the directory's scenario is replaced by one that does not match
            check_matches(checkpoint, make_plan(scenario))
    except (CheckpointError, RunFailed) as error:
        raise Failure(ExitCode.USAGE, str(error)) from error
    if checkpoint is None:
        note(f"{resume} holds no checkpoint: training begins again. Set schedule.checkpoint_every_steps to have some.")
    return RunDirectory(resume, command=command_line())


def _finish(directory: RunDirectory, scenario: Scenario, outcome: Outcome) -> dict[str, object]:
    attempts = sorted((directory.path / "attempts").iterdir())
    result = result_json(scenario, outcome, digest=log_digest(attempts[-1]))
    directory.write_json("result.json", result)
    for attempt in attempts:  # the roles' complaints are of use only where there are some
        errors = attempt / "errors"
        if errors.is_dir() and not any(path.stat().st_size for path in errors.iterdir()):
            shutil.rmtree(errors)
    return result


@contextmanager
def _bar(name: str) -> Iterator[coordinator.ShowProgress]:
    """Give a function that moves the bar and shows speed, loss, staleness and AUC beside it."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=1.0, said="starting")

        def show(progress: coordinator.Progress) -> None:
            parts = [f"{progress.samples_per_s:,.0f} samples/s"] if progress.samples_per_s else [progress.phase]
            figures = (("loss", progress.loss), ("staleness", progress.staleness), ("AUC", progress.auc))
            parts += [f"{label} {value:.4g}" for label, value in figures if value is not None]
            bar.update(task, completed=progress.fraction, said=" · ".join(parts))

        yield show

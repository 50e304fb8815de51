"""The ``tract7dt`` command.

Exit codes: 0 done; 1 a stage failed; 2 wrong usage or configuration; 130 interrupted. Everything heavy is
imported by the command that needs it, so that --help, --version and dump-config answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from flows.outcome import Outcome
from flows.results_cli import app as results_app
from tract7dt._version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="tract7dt",
    help="Forced multi-band photometry of the 7-Dimensional Telescope.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(results_app, name="results")

Config = Annotated[str, typer.Option("--config", "-c", help="Configuration file (YAML), path or URL.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything; show tracebacks.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tract7dt {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Forced multi-band photometry of the 7-Dimensional Telescope."""


@app.command()
def run(
    config: Config,
    override: Annotated[
        Optional[list[str]],  # noqa: UP045 -- typer reads the annotation
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Change a setting: zp.clip_sigma=2.5. Repeatable."
        ),
    ] = None,
    refresh: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="STAGE", help="Compute a stage anew although nothing has changed. Repeatable."),
    ] = None,
    only: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="PART",
            help="Fit a part: a patch (r00_c01_pr00_pc02), an ePSF cell (r00_c01) or a sky box in degrees "
            '("RA_MIN RA_MAX DEC_MIN DEC_MAX"). Repeatable.',
        ),
    ] = None,
    field: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Name of the field; must be the configuration's."),
    ] = None,
    night: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="YYYY-MM-DD", help="Night of the images: {night} in paths."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Bring the results to publish.url, if it is set.")
    ] = True,
    direct: Annotated[bool, typer.Option("--direct", help="Without Prefect, in this process.")] = False,
    debug: Debug = False,
) -> None:
    """Run the whole pipeline as a Prefect flow (or, with --direct, without Prefect).

    What an earlier run has made and is still right is reused.
    """
    from flows.execute import run_direct, run_flow
    from flows.parameters import Given
    from tract7dt.settings import parse_overrides

    with Outcome(debug):
        overrides = parse_overrides(override or ())
        given = Given(config, field, night, overrides, tuple(refresh or ()), tuple(only or ()), publish)
        (run_direct if direct else run_flow)(given, "run", debug)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to work in.")] = Path("demo"),
    debug: Debug = False,
) -> None:
    """Run the flow on the real field that comes with the package, and say how well it was measured."""
    from flows.demo import prepare_demo, print_demo
    from flows.execute import run_flow
    from flows.parameters import Given

    with Outcome(debug):
        run_flow(Given(str(prepare_demo(directory))), "run", debug)
        print_demo(directory)


Site = Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the site, with fields/NAME.yaml.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs at once on this machine.")]


@app.command("check-field")
def check_field(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="fields/NAME.yaml, or a configuration.")],
    night: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="YYYY-MM-DD", help="Night; the last evening's by default."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Say whether a field would run tonight: exit code 0 if it would, 1 if not, 2 for a wrong configuration."""
    with Outcome(debug):
        from flows.check_field import check_field as check

        found = check(file, night)
        for finding in found:
            typer.echo(f"{finding.level:<5} {finding.what:<14} {finding.said}")
        if any(finding.level == "fail" for finding in found):
            raise typer.Exit(1)


@app.command()
def retention(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="fields/NAME.yaml, or a configuration.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    debug: Debug = False,
) -> None:
    """Remove what retention of the configuration says of a field's old nights, here and where it is published."""
    with Outcome(debug):
        from flows.fields import given_of
        from flows.parameters import read_template
        from flows.retention import tidy

        removals = tidy(read_template(given_of(file)), dry_run)
        for removal in removals:
            size = f"{removal.n_files} files, {removal.n_bytes / 1e6:.1f} MB"
            typer.echo(f"{removal.night}  {', '.join(removal.what):<26} {size:<24} {removal.where}")
        typer.echo(f"{len(removals)} runs {'would lose' if dry_run else 'lost'} files")


@app.command()
def serve(
    site: Site = Path("deployments"),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets in everybody who reaches this machine.")
    ] = "127.0.0.1",
    runs: Runs = 1,
    debug: Debug = False,
) -> None:
    """Serve a site on this machine: server and UI, the fields' deployments, a worker."""
    with Outcome(debug):
        from flows.serve import serve as serve_site

        serve_site(site.resolve(), host, port, runs)


@app.command()
def deploy(
    site: Site = Path("deployments"),
    write_only: Annotated[
        bool, typer.Option("--write-only", help="Write prefect.yaml; `prefect deploy --all` registers it.")
    ] = False,
    runs: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Runs at once on the worker's machine."),
    ] = None,
    cut_off: Annotated[
        bool,
        typer.Option(
            "--cut-off", help="Before a worker starts: runs that the last one left are crashed ones."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Register the fields of a site with the Prefect server that PREFECT_API_URL names.

    Exit code 2 if a field's file is wrong; the others are registered.
    """
    with Outcome(debug):
        from flows.deploy import deploy as register
        from flows.deploy import end_what_was_cut_off, write_site

        problems = write_site(site.resolve())[1] if write_only else register(site.resolve(), runs)
        for problem in problems:
            typer.echo(f"passed over: {problem}", err=True)
        typer.echo(f"{'written' if write_only else 'registered'}: {site / 'prefect.yaml'}")
        if cut_off and not write_only and (left := end_what_was_cut_off()):
            typer.echo(f"{left} runs were cut off when the last worker ended; they are marked as crashed")
        if problems:
            raise typer.Exit(2)


def _step(command: str, config: str, debug: bool) -> None:
    from flows.execute import run_direct
    from flows.parameters import Given

    with Outcome(debug):
        run_direct(Given(config), command, debug)


@app.command("run-epsf")
def run_epsf(config: Config, debug: Debug = False) -> None:
    """Load the inputs and build the ePSFs."""
    _step("run-epsf", config, debug)


@app.command("build-patches")
def build_patches(config: Config, debug: Debug = False) -> None:
    """Load the inputs and divide the field into patches."""
    _step("build-patches", config, debug)


@app.command("build-patch-inputs")
def build_patch_inputs(config: Config, debug: Debug = False) -> None:
    """Write the payload of every patch, with the ePSFs that are there."""
    _step("build-patch-inputs", config, debug)


@app.command("run-patches")
def run_patches(config: Config, debug: Debug = False) -> None:
    """Fit the payloads that are there."""
    _step("run-patches", config, debug)


@app.command()
def merge(config: Config, debug: Debug = False) -> None:
    """Join the fits that are there to the catalogue."""
    _step("merge", config, debug)


@app.command("compute-zp")
def compute_zp(config: Config, debug: Debug = False) -> None:
    """Measure the zero points anew and write the magnitudes."""
    _step("compute-zp", config, debug)


@app.command()
def report(
    config: Config,
    with_cutouts: Annotated[
        bool,
        typer.Option("--with-cutouts", help="Put the cutouts of all sources into the file, to be sent away."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Write report.html anew from what is in work_dir; pictures of patches that are missing are drawn."""
    with Outcome(debug):
        from flows.parameters import Given, read_given
        from tract7dt import stages
        from tract7dt.patch_pictures import draw_missing
        from tract7dt.run_report import make_report, stored_record
        from tract7dt.store import WorkDir

        settings = read_given(Given(config)).settings
        record = stored_record(WorkDir.of(settings))
        draw_missing(settings, WorkDir.of(settings), stages.payload_refs(settings))
        path = make_report(settings, record, cutouts_inside=with_cutouts)
        typer.echo(f"written: {path}")


@app.command("dump-config")
def dump_config(
    output: Annotated[
        Optional[Path],  # noqa: UP045 -- typer reads the annotation
        typer.Option("--output", "-o", help="Write to this file instead of the terminal."),
    ] = None,
    force: Force = False,
) -> None:
    """Print a configuration with every key, its default and its meaning."""
    with Outcome():
        from tract7dt.errors import ConfigError
        from tract7dt.settings import dump_config_text

        text = dump_config_text()
        if output is None:
            typer.echo(text, nl=False)
            return
        if output.exists() and not force:
            raise ConfigError(f"{output} is there already; --force replaces it")
        from tract7dt.store import write_text

        write_text(output, text)
        typer.echo(f"written: {output}")


@app.command("download-sample")
def download_sample(
    directory: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--dir", help="Folder to put it in; named after the download if not given."),
    ] = None,
    force: Force = False,
) -> None:
    """Download the sample field that TRACT7DT_SAMPLE_REPO, _TAG, _ASSET and _SHA256 name."""
    with Outcome():
        from flows.samples import download

        download(directory, force)


@app.command("make-sample")
def make_sample(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write it to.")],
    size: Annotated[tuple[int, int], typer.Option(metavar="W H", help="Size, pix.")] = (1000, 1000),
    bands: Annotated[int, typer.Option(min=1, max=20, help="Number of bands.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same field.")] = 1,
    density: Annotated[str, typer.Option(help="sparse, normal, dense or crowded.")] = "normal",
    stars: Annotated[Optional[int], typer.Option(help="Number of stars.")] = None,  # noqa: UP045
    galaxies: Annotated[Optional[int], typer.Option(help="Number of galaxies.")] = None,  # noqa: UP045
    exposures: Annotated[int, typer.Option(min=1, help="Exposures of each stack.")] = 25,
    flux_columns: Annotated[bool, typer.Option("--flux-columns", help="Catalogue with FLUX_*.")] = False,
    force: Force = False,
) -> None:
    """Simulate a field of the telescope with its catalogue, Gaia table, configuration and truth."""
    with Outcome():
        from flows.samples import make

        make(
            directory,
            force,
            width=size[0],
            height=size[1],
            bands=bands,
            seed=seed,
            density=density,
            stars=stars,
            galaxies=galaxies,
            exposures=exposures,
            flux_columns=flux_columns,
        )


def main() -> None:
    """Entry point of the ``tract7dt`` command."""
    app(prog_name="tract7dt")


if __name__ == "__main__":
    main()

"""The `normkernels` command: it starts in every installation, and says which extra a command lacks."""

from typing import Any

import click

from . import __version__
from ._extras import install
from .compile_command import compile_

# What an extra installs for the command line, by the names it is imported by.
PACKAGES = {
    "bench": (
        "cpuinfo",
        "jinja2",
        "matplotlib",
        "ml_dtypes",
        "msgspec",
        "psutil",
        "yaml",
    ),
    "ab": ("scipy",),
    "models": ("timm", "torch", "transformers"),
}


class Commands(click.Group):
    """Commands of this installation and of the extra `bench`; errors are one line, without usage."""

    def list_commands(self, context: click.Context) -> list[str]:
        try:
            return sorted({*self.commands, *_of_bench().commands})
        except click.UsageError:
            return sorted(self.commands)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return self.commands.get(name) or _of_bench().commands.get(name)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Below the commands, in a sentence, why there are no more."""
        try:
            _of_bench()
        except click.UsageError:
            with formatter.indentation():
                formatter.write_paragraph()
                formatter.write_text(f"More commands with an extra: {install('bench')}")

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"normkernels: {error.format_message()}", err=True)
            raise SystemExit(error.exit_code) from None
        except click.Abort:
            click.echo("normkernels: interrupted", err=True)
            raise SystemExit(130) from None
        except ModuleNotFoundError as error:  # of what a command imports when it runs
            click.echo(f"normkernels: {_lacks(error)}", err=True)
            raise SystemExit(2) from None


def _of_bench() -> click.Group:
    """The commands of the extra `bench`; a UsageError where that is not installed."""
    try:
        from .bench.commands import cli as commands
    except ModuleNotFoundError as error:
        raise click.UsageError(_lacks(error)) from None
    return commands


def _lacks(error: ModuleNotFoundError) -> str:
    """What is missing and the extra that has it; raises the error where no extra has it."""
    package = str(error.name).partition(".")[0]
    for extra, packages in PACKAGES.items():
        if package in packages:
            return f"{package} is missing: {install(extra)}"
    raise error


@click.group(cls=Commands, invoke_without_command=True)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Fused normalization kernels: measure them on this machine."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


cli.add_command(compile_)


def main() -> None:
    """Run the command line."""
    cli(prog_name="normkernels")


if __name__ == "__main__":
    main()

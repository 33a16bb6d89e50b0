"""The `normkernels` command."""

import sys

# What the extra `bench` installs, by the names they are imported by.
BENCH = (
    "annotated_types",
    "click",
    "cpuinfo",
    "jinja2",
    "matplotlib",
    "psutil",
    "pydantic",
    "rich",
    "scipy",
    "yaml",
)


def main() -> None:
    """Run the command line; what it needs is imported only here."""
    try:
        from .bench.commands import cli

        cli(prog_name="normkernels")
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in BENCH:
            raise
        print(f"normkernels: {package} is missing: pip install 'normkernels[bench]'", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

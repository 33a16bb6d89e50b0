"""Publish asv's results as pages that need no network and open from disk: python benchmarks/site.py.

`asv publish` makes pages that load jQuery, flot and Bootstrap from CDNs. This puts copies beside them, with
their licences, taken from the npm registry (NPM_CONFIG_REGISTRY, or registry.npmjs.org).
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

import pooch

ROOT = Path(__file__).resolve().parent.parent
FROM_DISK = Path(__file__).with_name("site") / "from_disk.js"


class Package(NamedTuple):
    """A package of the npm registry, and which file of it stands for which file that asv loads."""

    name: str
    version: str
    sha256: str
    files: dict[str, str]


# The versions that asv loads, but for stupid-table-plugin: the registry has no 1.0.1.
PACKAGES = [
    Package(
        "jquery",
        "3.3.1",
        "2c7c70a1e796c1568ff05d45a8cb2da2a0fc6e37426c65e4eef6ee55e217933e",
        {"jquery-3.3.1.min.js": "dist/jquery.min.js"},
    ),
    Package(
        "flot",
        "0.8.3",
        "5e4cea78a9efa2d3dbba363ac76c688951e6c638ee916883c36e23516208b1ed",
        {
            "jquery.flot.min.js": "jquery.flot.js",
            "jquery.flot.time.min.js": "jquery.flot.time.js",
            "jquery.flot.selection.min.js": "jquery.flot.selection.js",
            "jquery.flot.categories.min.js": "jquery.flot.categories.js",
        },
    ),
    Package(
        "flot-orderbars",
        "1.0.0",
        "e5523ee7cca778f194b34fc31afb6dda40bf1557e6669fda4730c29f53e87101",
        {"jquery.flot.orderBars.js": "js/jquery.flot.orderBars.js"},
    ),
    Package(
        "stupid-table-plugin",
        "1.1.3",
        "1186089584b7c2f7fec9ad4232e9aa1adbfea273eaa233b713beb8c2c916b4ac",
        {"stupidtable.min.js": "stupidtable.min.js"},
    ),
    Package(
        "blueimp-md5",
        "2.19.0",
        "0fff5798c7733b21f3e4c0de69ccba12af266e0f01c3e3a41051c0e49a655512",
        {"md5.min.js": "js/md5.min.js"},
    ),
    Package(
        "bootstrap",
        "3.1.1",
        "23b27da4dd80b8fbe8972ac4be87037627e007ad5dd1edb27435844f0a4646a0",
        {
            "bootstrap.min.js": "dist/js/bootstrap.min.js",
            "bootstrap.min.css": "dist/css/bootstrap.min.css",
        },
    ),
]

# What is kept of a package besides the files asked for: its licence, which some have in package.json or
# the README only, and what its style sheet loads.
KEPT = re.compile(r"LICEN[CS]E[^/]*|README[^/]*|package\.json|dist/fonts/[^/]*")

LOADED = re.compile(r'(?P<attribute>src|href)="https?://[^"]*/(?P<file>[^"/]+)"(?P<rest>[^>]*)')
REMOTE_ONLY = re.compile(r'\s*\b(?:integrity|crossorigin|referrerpolicy)="[^"]*"')


def fetch(package: Package, target: Path) -> None:
    """Unpack what is needed of a package."""
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    address = f"{registry}/{package.name}/-/{package.name}-{package.version}.tgz"
    pooch.get_logger().setLevel("WARNING")
    try:
        archive = pooch.retrieve(address, f"sha256:{package.sha256}", path=pooch.os_cache("normkernels"))
    except (OSError, ValueError) as error:  # no network; another file than expected
        raise SystemExit(f"{address}: {error}") from error
    with tarfile.open(archive) as tar:
        for member in tar:
            # npm packs everything into one folder, mostly called "package".
            name = member.name.partition("/")[2]
            content = tar.extractfile(member)
            if content and (name in package.files.values() or KEPT.fullmatch(name)):
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read())


def localized(page: str) -> str:
    """The page with references to the copies; a file of which there is none is an error."""
    copies = {
        file: f"vendor/{package.name}/{copy}" for package in PACKAGES for file, copy in package.files.items()
    }

    def local(match: re.Match[str]) -> str:
        if match["file"] not in copies:
            raise SystemExit(f"{match[0]}: PACKAGES in {Path(__file__).name} has no copy of {match['file']}")
        return f'{match["attribute"]}="{copies[match["file"]]}"{REMOTE_ONLY.sub("", match["rest"])}'

    # Links to click on stay as they are.
    page = re.sub(r"<(?:script|link)\b[^>]*>", lambda tag: LOADED.sub(local, tag[0]), page)
    first = page.index("<script", page.index("vendor/jquery/"))
    return page[:first] + f'<script src="{FROM_DISK.name}"></script>\n    ' + page[first:]


def make_self_contained(site: Path) -> None:
    """Give what `asv publish` wrote its own copies of everything."""
    for package in PACKAGES:
        fetch(package, site / "vendor" / package.name)
    (site / FROM_DISK.name).write_text(FROM_DISK.read_text())
    index = site / "index.html"
    index.write_text(localized(index.read_text(encoding="utf-8")), encoding="utf-8")
    for data in site.rglob("*.json"):
        if "vendor" not in data.relative_to(site).parts:
            data.with_name(f"{data.name}.js").write_text(f"asv_json = {data.read_text()};\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / ".asv" / "html", help="folder of the pages"
    )
    parser.add_argument("--config", type=Path, default=ROOT / "asv.conf.json", help="asv's configuration")
    options = parser.parse_args()
    site = options.output.resolve()
    publish = ["publish", "--no-pull", "--config", str(options.config.resolve()), "--html-dir", str(site)]
    # -P: the current folder is not searched for modules.
    finished = subprocess.run([sys.executable, "-P", "-m", "asv", *publish])
    if finished.returncode:
        raise SystemExit(finished.returncode)
    make_self_contained(site)
    print(f"{site / 'index.html'} opens in a browser, from disk too.")


if __name__ == "__main__":
    main()

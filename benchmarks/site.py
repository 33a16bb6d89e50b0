"""Publish asv's results as pages that need no network and open from disk: python benchmarks/site.py.

`asv publish` makes pages that load jQuery, flot and Bootstrap from CDNs. This puts copies beside them, with
their licences, which npm installs.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).with_name("site")
FROM_DISK = HERE / "from_disk.js"


# Which file of a package stands for which file that asv loads. The versions, in site/package.json, are those
# that asv names, but for stupid-table-plugin, of which npm has no 1.0.1.
PACKAGES = {
    "jquery": {"jquery-3.3.1.min.js": "dist/jquery.min.js"},
    "flot": {
        "jquery.flot.min.js": "jquery.flot.js",
        "jquery.flot.time.min.js": "jquery.flot.time.js",
        "jquery.flot.selection.min.js": "jquery.flot.selection.js",
        "jquery.flot.categories.min.js": "jquery.flot.categories.js",
    },
    "flot-orderbars": {"jquery.flot.orderBars.js": "js/jquery.flot.orderBars.js"},
    "stupid-table-plugin": {"stupidtable.min.js": "stupidtable.min.js"},
    "blueimp-md5": {"md5.min.js": "js/md5.min.js"},
    "bootstrap": {
        "bootstrap.min.js": "dist/js/bootstrap.min.js",
        "bootstrap.min.css": "dist/css/bootstrap.min.css",
    },
}

# What is kept of a package besides the files asked for: its licence, which some have in package.json or
# the README only, and what its style sheet loads.
KEPT = re.compile(r"LICEN[CS]E[^/]*|README[^/]*|package\.json|dist/fonts/[^/]*")

LOADED = re.compile(r'(?P<attribute>src|href)="https?://[^"]*/(?P<file>[^"/]+)"(?P<rest>[^>]*)')
REMOTE_ONLY = re.compile(r'\s*\b(?:integrity|crossorigin|referrerpolicy)="[^"]*"')


def copy_packages(target: Path) -> None:
    """Have npm install the packages, and copy what is needed of each."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            subprocess.run(install, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise SystemExit("npm must be installed (Node.js), got no such command") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"npm ci must succeed, got exit code {error.returncode}") from None
        for package, files in PACKAGES.items():
            source = Path(folder, "node_modules", package)
            for file in source.rglob("*"):
                name = file.relative_to(source).as_posix()
                if file.is_file() and (name in files.values() or KEPT.fullmatch(name)):
                    copy = target / package / name
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copy)


def localized(page: str) -> str:
    """The page with references to the copies; a file of which there is none is an error."""
    copies = {
        file: f"vendor/{name}/{copy}" for name, files in PACKAGES.items() for file, copy in files.items()
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
    copy_packages(site / "vendor")
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

"""Fetch and unpack one exact version of a Debian package; the system's apt configuration stays untouched."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = """Types: deb
URIs: {mirror}
Suites: {suite}
Components: main non-free
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    sha256: str
    suite: str = "bookworm"

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version}_all.deb"


def unpack(package: Package, scratch: Path) -> Path:
    """Download `package` into `scratch` (once), check its sha256, and return the folder it is unpacked in."""
    scratch = scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    archive = scratch / package.file_name
    if not archive.is_file():
        _download(package, scratch)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SystemExit(f"{archive}: sha256 {found}, expected {package.sha256}; delete it to try again")
    folder = scratch / f"{package.name}_{package.version}"
    if not folder.is_dir():
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        subprocess.run(["dpkg-deb", "-x", archive, partial], check=True)
        os.replace(partial, folder)
    return folder


def _download(package: Package, scratch: Path) -> None:
    """`apt-get download` with sources, lists and cache of its own, all inside `scratch`."""
    sources, lists, cache = scratch / "sources", scratch / "lists", scratch / "cache"
    for folder in (sources, lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    mirror = os.environ.get("DEBIAN_MIRROR") or _system_mirror(package.suite)
    (sources / "debian.sources").write_text(SOURCE.format(mirror=mirror, suite=package.suite))
    settings = {
        "Dir::Etc::sourcelist": "/dev/null",
        "Dir::Etc::sourceparts": sources,
        "Dir::State::lists": lists,
        "Dir::Cache": cache,
        "APT::Sandbox::User": "",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    subprocess.run(["apt-get", *options, "-qq", "update"], check=True)
    wanted = f"{package.name}={package.version}"
    subprocess.run(["apt-get", *options, "-qq", "download", wanted], check=True, cwd=scratch)


def _system_mirror(suite: str) -> str:
    """The mirror of `suite` that the system's own sources name."""
    command = ["apt-get", "indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    sites = [site for release, site in map(str.split, lines) if release == suite]
    if not sites:
        raise SystemExit(f"no apt source for Debian {suite} on this system; set DEBIAN_MIRROR to a mirror's URL")
    return sites[0]

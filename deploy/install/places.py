"""Where everything goes: the one list of what is installed beside the program itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TREE: Final = Path(__file__).resolve().parents[2]
DAEMONS: Final = ("tracerd", "policyd", "enforcer")
SERVICES: Final = tuple(f"execray-{name}.service" for name in DAEMONS)
ACCOUNTS: Final = ("execray-policyd", "execray-enforcer")
GROUP: Final = "execray"
CTL: Final = "execray-ctl"
#: Prefixes below whose lib/ systemd looks for units, sysusers.d and tmpfiles.d by itself.
SYSTEMD_LOOKS_IN: Final = (Path("/usr"), Path("/usr/local"))


@dataclass(frozen=True, slots=True)
class Places:
    """The final paths, as they will be on the host. `on_disk` gives where they are now, below DESTDIR."""

    prefix: Path
    destdir: Path = Path("/")
    etc: Path = Path("/etc/execray")
    state: Path = Path("/var/lib/execray")
    run: Path = Path("/run/execray")

    def on_disk(self, path: Path) -> Path:
        """Returns where a path of the host lies now."""
        return self.destdir / path.relative_to("/")

    @property
    def program(self) -> Path:
        """The private venv."""
        return self.prefix / "lib" / "execray"

    @property
    def manifest(self) -> Path:
        """Says what was installed, for the next version and for uninstall."""
        return self.program / "manifest"

    @property
    def systemd(self) -> Path:
        """Where systemd looks for what belongs to this prefix."""
        return self.prefix / "lib" if self.prefix in SYSTEMD_LOOKS_IN else Path("/etc")

    @property
    def units(self) -> Path:
        """Where the units go."""
        return self.systemd / "systemd" / "system"

    @property
    def share(self) -> Path:
        """Read-only data."""
        return self.prefix / "share"

    @property
    def shipped(self) -> Path:
        """The configuration and policies as they came, to compare one's own with."""
        return self.share / "execray"

    @property
    def drop_ins(self) -> Path:
        """The operator's own configuration files."""
        return self.etc / "execray.d"

    @property
    def sysusers(self) -> Path:
        """The accounts' declaration."""
        return self.systemd / "sysusers.d" / "execray.conf"

    @property
    def tmpfiles(self) -> Path:
        """The folders' declaration."""
        return self.systemd / "tmpfiles.d" / "execray.conf"

    def links(self) -> Iterator[tuple[Path, Path]]:
        """Yields each link and what it points at."""
        for name in DAEMONS:
            yield self.prefix / "sbin" / f"execray-{name}", self.program / "bin" / name
        yield self.prefix / "bin" / CTL, self.program / "bin" / CTL

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Yields each file of the tree that is replaced by every installation, and where it goes."""
        deploy = TREE / "deploy"
        for unit in sorted((deploy / "systemd").iterdir()):
            yield unit, self.units / unit.name
        yield deploy / "sysusers.d" / "execray.conf", self.sysusers
        yield deploy / "tmpfiles.d" / "execray.conf", self.tmpfiles
        headers = TREE / "bpf" / "include"
        for header in sorted(headers.rglob("*.h")):
            yield header, self.shipped / "include" / header.relative_to(headers)
        for source, target in self.configuration():
            yield source, self.shipped / target.relative_to(self.etc)

    def configuration(self) -> Iterator[tuple[Path, Path]]:
        """Yields each file that is the operator's once it is there, and where it goes."""
        yield TREE / "deploy" / "config" / "execray.yaml", self.etc / "execray.yaml"
        for policy in sorted((TREE / "policies").glob("*.policy")):
            yield policy, self.etc / "policies" / policy.name

    def generated(self) -> dict[str, Path]:
        """Where what deploy/install/generate.py makes goes, by its name there."""
        # Debian's zsh looks into site-functions below /usr/local, but not below /usr.
        zsh = "vendor-completions" if self.prefix == Path("/usr") else "site-functions"
        man = self.share / "man"
        return {
            f"{CTL}.1": man / "man1" / f"{CTL}.1",
            **{f"execray-{name}.8": man / "man8" / f"execray-{name}.8" for name in DAEMONS},
            "bash": self.share / "bash-completion" / "completions" / CTL,
            "zsh": self.share / "zsh" / zsh / f"_{CTL}",
            "fish": self.share / "fish" / "vendor_completions.d" / f"{CTL}.fish",
        }

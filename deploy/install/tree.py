"""Puts files down and takes them away again. A manifest says which, so that nothing is forgotten and nothing foreign removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from deploy.install import program
from deploy.install.places import TREE, Places
from execray.errors import OperatorError


class Installed(NamedTuple):
    """kept: the configuration files that were there and differ from ours. as_python: why nothing is compiled."""

    kept: list[Path]
    as_python: str | None


def install(places: Places, compiled: program.Compiled) -> Installed:
    """Installs everything. Raises OperatorError.

    The program is complete beside the old one before it takes its place: what fails until then has changed nothing.
    """
    try:
        former = _read(places)
        record = _Record(places, former)
        program.check_python()
        _check_links(places)
        final = places.on_disk(places.program)
        fresh = _unfinished(places)
        record.folder(final.parent)
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            as_python = program.build(fresh, places.program, compiled)
            generated = _generate(fresh)
            _replace(final, fresh)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        for name, target in places.generated().items():
            record.write(target, generated[name])
        for source, target in places.files():
            text = source.read_text(encoding="utf-8").replace("@PREFIX@", str(places.prefix))
            record.write(target, text)
        for link, target in places.links():
            record.link(link, target)
        kept = _configuration(places, record, {path for path in former if path.is_relative_to(places.shipped)})
        _remove(places, [path for path in former if path not in record.paths])
        record.save()
    except OSError as error:
        raise OperatorError(f"can't install: {error.filename}: {error.strerror}", "use sudo, or DESTDIR=") from error
    return Installed(kept, as_python)


def uninstall(places: Places, *, purge: bool) -> None:
    """Removes what install made; purge: configuration and state too. Raises OperatorError where nothing is installed."""
    try:
        made = _read(places)
        if not made and not purge and not _unfinished(places).exists():
            raise OperatorError(f"nothing is installed in {places.on_disk(places.program)}", "was it another PREFIX?")
        if made:
            shutil.rmtree(places.on_disk(places.program))
        shutil.rmtree(_unfinished(places), ignore_errors=True)
        if purge:
            for folder in (places.etc, places.state, places.run):
                shutil.rmtree(places.on_disk(folder), ignore_errors=not places.on_disk(folder).exists())
        _remove(places, made)
    except OSError as error:
        raise OperatorError(f"can't uninstall: {error.filename}: {error.strerror}", "use sudo") from error


def _unfinished(places: Places) -> Path:
    """Where the program is built; an installation that is killed leaves it behind."""
    final = places.on_disk(places.program)
    return final.with_name(f"{final.name}.new")


class _Record:
    """What is made, in the order of its making; folders only where they were not there before."""

    def __init__(self, places: Places, former: list[Path]) -> None:
        self._places = places
        self._folders = [path for path in former if places.on_disk(path).is_dir()]
        self._files: list[Path] = []

    @property
    def paths(self) -> list[Path]:
        """Everything, folders first."""
        return [*dict.fromkeys((*self._folders, *self._files))]

    def folder(self, on_disk: Path) -> None:
        """Makes a folder with its parents, where they aren't there."""
        missing = [path for path in (on_disk, *on_disk.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o755)
            if path.is_relative_to(self._places.destdir) and path != self._places.destdir:
                self._folders.append(Path("/") / path.relative_to(self._places.destdir))

    def write(self, path: Path, text: str, *, ours: bool = True) -> None:
        """Writes a file, whole or not at all. ours: it is removed again by uninstall."""
        target = self._places.on_disk(path)
        self.folder(target.parent)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=".", encoding="utf-8", delete=False) as file:
            file.write(text)
        os.chmod(file.name, 0o644)  # noqa: PTH101  # a name, as tempfile gives it
        os.replace(file.name, target)  # noqa: PTH105
        if ours:
            self._files.append(path)

    def link(self, path: Path, target: Path) -> None:
        """Makes a symbolic link, which may be there from before."""
        on_disk = self._places.on_disk(path)
        self.folder(on_disk.parent)
        if not on_disk.is_symlink():
            on_disk.symlink_to(target)
        self._files.append(path)

    def save(self) -> None:
        """Writes the manifest."""
        manifest = self._places.on_disk(self._places.manifest)
        manifest.write_text("".join(f"{path}\n" for path in self.paths), encoding="utf-8")


def _check_links(places: Places) -> None:
    """Raises OperatorError where something else stands in the place of a link: it may be another package's program."""
    for path, target in places.links():
        on_disk = places.on_disk(path)
        ours = on_disk.is_symlink() and os.readlink(on_disk) == str(target)  # noqa: PTH115
        if not ours and (on_disk.exists() or on_disk.is_symlink()):
            raise OperatorError(f"{on_disk} is there already, and not ours", "move it away, or choose another PREFIX")


def _configuration(places: Places, record: _Record, known: set[Path]) -> list[Path]:
    """Puts down the configuration that is new. known: what came before: of that, what is missing was removed on purpose."""
    kept = []
    record.folder(places.on_disk(places.drop_ins))
    for source, path in places.configuration():
        target = places.on_disk(path)
        text = source.read_text(encoding="utf-8")
        if not target.exists():
            if places.shipped / path.relative_to(places.etc) not in known:
                record.write(path, text, ours=False)
        elif target.read_bytes() != text.encode():
            kept.append(path)
    return kept


def _generate(fresh: Path) -> dict[str, str]:
    """Has the new program describe itself: man page and completions, by name."""
    with tempfile.TemporaryDirectory(prefix="execray-") as folder:
        # The generator is the tree's, the commands are the venv's own, which come first on its path.
        script = "import sys; tree, folder = sys.argv[1:]; sys.path.append(tree); "
        script += "from deploy.install.generate import Path, generate; generate(Path(folder))"
        done = subprocess.run(
            [fresh / "bin" / "python3", "-IBc", script, TREE, folder],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise OperatorError(f"the new program doesn't run: {done.stderr.strip()[-500:]}")
        return {file.name: file.read_text(encoding="utf-8") for file in Path(folder).iterdir()}


def _replace(final: Path, fresh: Path) -> None:
    """Puts the new program into the place of the old one, between two instants of there being none."""
    old = final.with_name(f"{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _read(places: Places) -> list[Path]:
    manifest = places.on_disk(places.manifest)
    return [Path(line) for line in manifest.read_text(encoding="utf-8").splitlines()] if manifest.exists() else []


def _remove(places: Places, paths: list[Path]) -> None:
    """Removes files, and then the folders that are empty now, the deepest first."""
    on_disk = [places.on_disk(path) for path in paths]
    for path in on_disk:
        if path.is_symlink() or path.is_file():
            path.unlink()
    for path in sorted((p for p in on_disk if p.is_dir()), key=lambda p: len(p.parts), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()

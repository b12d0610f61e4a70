"""Folders of installed plug-ins, as pip leaves them: modules, and a dist-info with their entry points."""

from __future__ import annotations

from pathlib import Path

from execray.plugins import ACTIONS, SINKS

DATA = Path(__file__).parents[1] / "data" / "plugins"


def install(folder: Path, name: str, source: str, entries: dict[str, dict[str, str]], version: str = "1.0") -> Path:
    """Installs one module as a package of that name. entries: by group, entry points by name. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(source)
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in entries.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def install_misbehaved(folder: Path) -> Path:
    """Installs tests/data/plugins/misbehaved.py, as the sink `bad` and as the action `bad_too`."""
    source = (DATA / "misbehaved.py").read_text()
    return install(
        folder, "misbehaved", source, {SINKS: {"bad": "misbehaved:make"}, ACTIONS: {"bad_too": "misbehaved:make"}}
    )

"""The plug-ins that the configuration names: found, started, told, shown, and ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execray.config import PolicydConfig
from execray.plugins import ACTIONS, BUILT_IN_SINKS, SINKS, ActionRequest
from policyd.plugin_facts import PluginOptions
from policyd.plugin_lane import PluginLane
from policyd.plugin_requests import DROPPED, NOT_ALLOWED, QUEUED
from policyd.sinks.base import Alert

if TYPE_CHECKING:
    from execray.plugin_index import Installed


class Plugins:
    """All plug-ins of one policyd. None of their code runs in this process."""

    def __init__(self, config: PolicydConfig, log: logging.Logger) -> None:
        self._config = config
        self._log = log
        self._sinks: dict[str, PluginLane[Alert]] = {}
        self._actions: dict[str, PluginLane[ActionRequest]] = {}

    @property
    def sinks(self) -> Sequence[PluginLane[Alert]]:
        """Those that alerts are sent to; none before start()."""
        return list(self._sinks.values())

    def start(self) -> None:
        """Finds what the configuration names, and starts a thread and a process for each: after root is given up.

        Raises OperatorError for a name that isn't installed; then nothing is started.
        """
        config = self._config
        sinks = [name for name in dict.fromkeys(config.sinks) if name not in BUILT_IN_SINKS]
        actions = list(dict.fromkeys(config.actions))
        found_sinks = _found(SINKS, sinks, config.plugin_dir, BUILT_IN_SINKS)
        found_actions = _found(ACTIONS, actions, config.plugin_dir)
        self._sinks = {
            plugin.name: PluginLane(plugin, self._options(plugin.name), dict, self._log) for plugin in found_sinks
        }
        self._actions = {
            plugin.name: PluginLane(plugin, self._options(plugin.name), ActionRequest.to_json, self._log)
            for plugin in found_actions
        }
        for lane in self._all():
            lane.start()
        if unused := sorted(set(config.plugins) - set(sinks) - set(actions)):
            self._log.warning("unused plug-in settings", extra={"kv": {"plugins": ",".join(unused)}})

    def tell(self, name: str, request: ActionRequest) -> str:
        """Hands a request to an action plug-in, without waiting; returns what became of it."""
        lane = self._actions.get(name)
        if lane is None:
            return NOT_ALLOWED
        return QUEUED if lane.put(request) else DROPPED

    def status(self) -> list[dict[str, object]]:
        """Returns each plug-in's counts, and how its process is."""
        return [lane.status() for lane in self._all()]

    async def close(self, timeout_s: float = 2.0) -> None:
        """Hands over what is queued, within that time, and ends all; those that were closed before stay so."""
        await asyncio.gather(*(asyncio.to_thread(lane.close, timeout_s) for lane in self._all()))

    def _all(self) -> list[PluginLane[Any]]:
        return [*self._sinks.values(), *self._actions.values()]

    def _options(self, name: str) -> PluginOptions:
        config = self._config
        settings: dict[str, Any] = dict(config.plugins.get(name, {}))
        return PluginOptions(settings, str(config.plugin_dir), config.plugin_timeout_s, config.plugin_memory_mib)


def _found(group: str, names: Iterable[str], folder: Path, others: Iterable[str] = ()) -> list[Installed]:
    found = []
    for name in names:
        # Imported here: it takes 3 MB, and most hosts name no plug-in.
        from execray.plugin_index import find  # noqa: PLC0415

        found.append(find(group, name, folder, others))
    return found

"""Names that the shell completes by asking policyd: quickly, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from execray.ctl.context import Context, as_map, as_maps
from execray.errors import OperatorError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TIMEOUT_S: Final = 0.3
_MOST: Final = 200


def policy_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the name of a loaded policy."""
    found = as_maps(as_map(_ask(ctx, "policies")).get("policies"))
    return _items([(str(one.get("name", "")), str(one.get("severity", ""))) for one in found], incomplete)


def alert_ids(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completes the id of an alert on file, the newest first."""
    alerts = as_maps(as_map(_ask(ctx, "alerts.list", limit=_MOST)).get("alerts"))
    pairs = []
    for alert in reversed(alerts):
        own = as_map(alert.get("execray"))
        about = f"{own.get('severity', '')} {as_map(alert.get('rule')).get('name', '')}"
        pairs.append((str(own.get("alert_id", "")), about))
    return _items(pairs, incomplete)


def _ask(ctx: click.Context, op: str, **args: object) -> Any:
    """Returns policyd's answer, None for any reason why there is none: a shell that completes has nowhere to show it."""
    from execray.control_client import ControlClient  # noqa: PLC0415  # only for completion

    options = ctx.find_root().params
    context = Context(options.get("config_file"), options.get("runtime_dir"))
    try:
        with ControlClient(context.config.control_socket("policyd"), TIMEOUT_S) as client:
            return client.call(op, **args)
    except OperatorError:
        return None


def _items(pairs: list[tuple[str, str]], incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem  # noqa: PLC0415  # only for completion

    # The shells' scripts take words apart at white space and commas.
    plain = [(name, about) for name, about in pairs if name.isprintable() and not set(name) & set(" ,\"'\\$`")]
    return [
        CompletionItem(name, help=about if about.isprintable() else None)
        for name, about in dict.fromkeys(plain)
        if name and name.startswith(incomplete)
    ]

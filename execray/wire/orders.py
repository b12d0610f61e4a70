"""Orders to the enforcer and their outcomes: one JSON object a line, sans I/O.

policyd sends orders, the enforcer answers each. A kill has one outcome. A capture that begins has two, on the same
connection: `capturing` as soon as packets are being recorded, and `captured` with the final facts. A line that is no
order is answered by `{"v": 1, "error": "..."}`, and the connection is closed. `docs/wire.md` shows them.
"""

from __future__ import annotations

import enum
import ipaddress
import json
import re
from typing import Any, Final, TypeVar

from execray.errors import PeerError
from execray.process import ProcessKey
from execray.schema.records import compared

E = TypeVar("E", bound=enum.Enum)

ORDER_VERSION: Final = 1
MAX_LINE_BYTES: Final = 16 * 1024
MAX_ID_CHARS: Final = 128
MAX_POLICY_CHARS: Final = 256
MAX_EXE_CHARS: Final = 1024
MAX_FILE_CHARS: Final = 4096
MAX_TEXT_CHARS: Final = 1024
MAX_FLOWS: Final = 16
_INT64_MAX: Final = (1 << 63) - 1
_PID_MAX: Final = (1 << 31) - 1


class Action(enum.Enum):
    """What is to be done to the process."""

    KILL = "kill"
    CAPTURE = "capture"


class Mode(enum.Enum):
    """How far the policy behind an order may go."""

    AUDIT = "audit"
    ENFORCE = "enforce"


class Result(enum.Enum):
    """What became of an order."""

    KILLED = "killed"  # SIGKILL is sent; `dead` says whether its end was seen
    WOULD_KILL = "would_kill"  # nothing was done: the host or the policy is in audit mode
    REFUSED = "refused"  # the guard said no, and why
    GONE = "gone"  # the process had ended before
    FAILED = "failed"  # tried, and the system refused
    CAPTURING = "capturing"  # packets are being recorded; CAPTURED follows
    CAPTURED = "captured"

    @property
    def final(self) -> bool:
        """Whether nothing more follows for the order."""
        return self is not Result.CAPTURING


@compared(frozen=True, slots=True)
class Flow:
    """One connection of the process. The source may be unknown: None, or an address or port of zero."""

    proto: str  # tcp or udp
    dst_ip: str
    dst_port: int
    src_ip: str | None = None
    src_port: int | None = None


@compared(frozen=True, slots=True)
class CaptureSpec:
    """How much traffic to record: of these flows, or all that the host sees where there are none."""

    seconds: float
    max_bytes: int
    flows: tuple[Flow, ...] = ()


@compared(frozen=True, slots=True)
class Order:
    """One thing to do. An order_id names one order for ever: a repeated one is answered with its outcome, not done again.

    issued_ns: CLOCK_BOOTTIME. exe: the program as the kernel named it in the event, "" when unknown; the guard takes it
    as a further reason to refuse, never as one to allow.
    """

    order_id: str
    action: Action
    process: ProcessKey
    policy: str
    alert_id: str
    mode: Mode
    issued_ns: int
    exe: str = ""
    capture: CaptureSpec | None = None


@compared(frozen=True, slots=True)
class Outcome:
    """What became of an order.

    code: a word of execray.guard.Reason where the result needs one, else "". by: `enforcer`, or `policyd` for its fallback.
    took_ns: from taking up the order to the end of the process, or to the answer where that was not seen.
    """

    order_id: str
    result: Result
    code: str
    text: str
    by: str
    time_ns: int  # CLOCK_BOOTTIME
    took_ns: int = 0
    dead: bool = False
    file: str | None = None
    packets: int | None = None
    bytes: int | None = None


#: Made once: json.loads and json.dumps make one for each call that asks for anything out of the ordinary.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)
#: JSON of a text, in ASCII.
_quoted: Final = json.encoder.encode_basestring_ascii


def encode_order(order: Order) -> bytes:
    """Returns the order's line. Raises ValueError when it is longer than MAX_LINE_BYTES.

    A policy's name is cut to MAX_POLICY_CHARS, and an exe over MAX_EXE_CHARS left out: the watched process chooses its
    length, and must not be able to make its own order unfit to be sent.
    """
    process = order.process
    # Put together by hand: a kill waits for it, and the encoder takes four times as long in a process that sent none for a while.
    written = (
        f'{{"v":{ORDER_VERSION:d},"order_id":{_quoted(order.order_id)},"action":{_quoted(order.action.value)},'
        f'"process":{{"pid":{process.pid:d},"start_ns":{process.start_ns:d},"boot_id":{_quoted(process.boot_id)}}},'
        f'"policy":{_quoted(order.policy[:MAX_POLICY_CHARS])},"alert_id":{_quoted(order.alert_id)},'
        f'"mode":{_quoted(order.mode.value)},"issued_ns":{order.issued_ns:d}'
    )
    if 0 < len(order.exe) <= MAX_EXE_CHARS:
        written += f',"exe":{_quoted(order.exe)}'
    if order.capture is not None:
        capture = {
            "seconds": order.capture.seconds,
            "max_bytes": order.capture.max_bytes,
            "flows": [_flow_to_json(flow) for flow in order.capture.flows],
        }
        written += f',"capture":{_ENCODER.encode(capture)}'
    line = f"{written}}}\n".encode("ascii")
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"an order of {len(line)} bytes is over {MAX_LINE_BYTES}")
    return line


def decode_order(line: bytes) -> Order:
    """Decodes an order's line. Raises PeerError for unknown fields, other types, other versions, and values out of range."""
    return _plain_kill(line) or _decode_order(line)


def _plain_kill(line: bytes) -> Order | None:
    """Decodes a kill order that is written as encode_order() writes most; None for all else, which is for the other to judge.

    A kill waits for this: one match takes a third of what JSON and each field by itself take in a process that had no order for
    a while. It takes nothing that the other would refuse, and takes it for the same.
    """
    found = _PLAIN_KILL.fullmatch(line)
    if found is None:
        return None
    order_id, pid, start_ns, boot, policy, alert_id, mode, issued_ns, exe = found.groups()
    key = ProcessKey(int(pid), int(start_ns), boot.decode("ascii"))
    issued = int(issued_ns)
    if key.pid > _PID_MAX or key.start_ns > _INT64_MAX or issued > _INT64_MAX or len(line) > MAX_LINE_BYTES:
        return None
    return Order(
        order_id.decode("ascii"),
        Action.KILL,
        key,
        policy.decode("ascii"),
        alert_id.decode("ascii"),
        Mode.ENFORCE if mode == b"enforce" else Mode.AUDIT,
        issued,
        exe.decode("ascii") if exe else "",
    )


#: Text that JSON writes as it is: printable ASCII but for `"` and `\`.
_TEXT: Final = rb"[ !#-\[\]-~]"
_NUMBER: Final = rb"(0|[1-9][0-9]{0,18})"
_PLAIN_KILL: Final = re.compile(
    rb'\{"v":%d,"order_id":"(%b{1,%d})","action":"kill",' % (ORDER_VERSION, _TEXT, MAX_ID_CHARS)
    + rb'"process":\{"pid":%b,"start_ns":%b,"boot_id":"(%b{1,36})"\},' % (_NUMBER, _NUMBER, _TEXT)
    + rb'"policy":"(%b{0,%d})","alert_id":"(%b{0,%d})",' % (_TEXT, MAX_POLICY_CHARS, _TEXT, MAX_ID_CHARS)
    + rb'"mode":"(audit|enforce)","issued_ns":%b(?:,"exe":"(%b{0,%d})")?\}\n' % (_NUMBER, _TEXT, MAX_EXE_CHARS)
)


def _decode_order(line: bytes) -> Order:
    message = _object(line)
    _check_version(message.pop("v", None))
    fields = _Fields(message, "the order")
    order = Order(
        order_id=fields.text("order_id", MAX_ID_CHARS, empty=False),
        action=fields.choice("action", Action),
        process=_process(fields.mapping("process")),
        policy=fields.text("policy", MAX_POLICY_CHARS),
        alert_id=fields.text("alert_id", MAX_ID_CHARS),
        mode=fields.choice("mode", Mode),
        issued_ns=fields.integer("issued_ns", 0, _INT64_MAX),
        exe=fields.text("exe", MAX_EXE_CHARS) if "exe" in message else "",
        capture=_capture(fields.mapping("capture")) if "capture" in message else None,
    )
    fields.done()
    if (order.action is Action.CAPTURE) != (order.capture is not None):
        raise PeerError("`capture` goes with the action capture, and only with it")
    return order


def encode_outcome(outcome: Outcome) -> bytes:
    """Returns the outcome's line."""
    message: dict[str, Any] = {
        "v": ORDER_VERSION,
        "order_id": outcome.order_id,
        "result": outcome.result.value,
        "code": outcome.code,
        "text": outcome.text,
        "by": outcome.by,
        "time_ns": outcome.time_ns,
        "took_ns": outcome.took_ns,
        "dead": outcome.dead,
    }
    facts = {"file": outcome.file, "packets": outcome.packets, "bytes": outcome.bytes}
    return _line(message | {name: value for name, value in facts.items() if value is not None})


def encode_error(text: str) -> bytes:
    """Returns the line that answers what is no order."""
    return _line({"v": ORDER_VERSION, "error": text})


def decode_outcome(line: bytes) -> Outcome:
    """Decodes an outcome's line. Fields that we don't know are ignored. Raises PeerError, also for an error line."""
    message = _object(line)
    _check_version(message.get("v"))
    if "error" in message:
        raise PeerError(f"the enforcer says: {str(message['error'])[:200]}")
    fields = _Fields(message, "the outcome")
    return Outcome(
        order_id=fields.text("order_id", MAX_ID_CHARS),
        result=fields.choice("result", Result),
        code=fields.text("code", MAX_ID_CHARS),
        text=fields.text("text", MAX_TEXT_CHARS),
        by=fields.text("by", MAX_ID_CHARS),
        time_ns=fields.integer("time_ns", 0, _INT64_MAX),
        took_ns=fields.integer("took_ns", 0, _INT64_MAX),
        dead=fields.boolean("dead"),
        file=fields.text("file", MAX_FILE_CHARS) if "file" in message else None,
        packets=fields.integer("packets", 0, _INT64_MAX) if "packets" in message else None,
        bytes=fields.integer("bytes", 0, _INT64_MAX) if "bytes" in message else None,
    )


def _check_version(found: object) -> None:
    if type(found) is not int or found != ORDER_VERSION:
        raise PeerError(f"orders of version {str(found)[:16]!r}, and this is {ORDER_VERSION}")


def _flow_to_json(flow: Flow) -> dict[str, Any]:
    known = {"proto": flow.proto, "dst_ip": flow.dst_ip, "dst_port": flow.dst_port}
    source = {"src_ip": flow.src_ip, "src_port": flow.src_port}
    return known | {name: value for name, value in source.items() if value is not None}


def _line(message: dict[str, Any]) -> bytes:
    return _ENCODER.encode(message).encode("ascii") + b"\n"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two values under one name, the reader of the audit log and we might pick different ones.
    message = dict(pairs)
    if len(message) != len(pairs):
        raise ValueError("a field twice")
    return message


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise PeerError(f"a line of {len(line)} bytes is over {MAX_LINE_BYTES}")
    try:
        message = _DECODER.decode(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise PeerError("not a line of JSON, or a field twice") from error
    if not isinstance(message, dict):
        raise PeerError("not a JSON object")
    return message


class _Fields:
    """Takes fields out of a JSON object, each with its exact type: `true` is no number, `1.0` no integer."""

    def __init__(self, message: dict[str, Any], what: str) -> None:
        self._rest = dict(message)
        self._what = what

    def _take(self, name: str, *kinds: type) -> Any:
        if name not in self._rest:
            raise PeerError(f"{self._what} has no `{name}`")
        value = self._rest.pop(name)
        if type(value) not in kinds:
            raise PeerError(f"`{name}` of {self._what} is of another type")
        return value

    def text(self, name: str, max_chars: int, *, empty: bool = True) -> str:
        value: str = self._take(name, str)
        if len(value) > max_chars or not (value or empty):
            raise PeerError(f"`{name}` of {self._what} has {len(value)} characters")
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise PeerError(f"`{name}` of {self._what} is neither UTF-8 nor escaped bytes") from error
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value: int = self._take(name, int)
        if not low <= value <= high:
            raise PeerError(f"`{name}` of {self._what} is out of range")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        value: float = self._take(name, int, float)
        if not low <= value <= high:
            raise PeerError(f"`{name}` of {self._what} is out of range")
        return float(value)

    def boolean(self, name: str) -> bool:
        value: bool = self._take(name, bool)
        return value

    def mapping(self, name: str) -> _Fields:
        return _Fields(self._take(name, dict), f"`{name}`")

    def sequence(self, name: str, max_items: int) -> list[Any]:
        value: list[Any] = self._take(name, list)
        if len(value) > max_items:
            raise PeerError(f"`{name}` of {self._what} has {len(value)} items")
        return value

    def choice(self, name: str, kind: type[E]) -> E:
        try:
            return kind(self._take(name, str))
        except ValueError as error:
            known = ", ".join(str(member.value) for member in kind)
            raise PeerError(f"`{name}` of {self._what} is none of {known}") from error

    def has(self, name: str) -> bool:
        return name in self._rest

    def done(self) -> None:
        """Raises PeerError when a field is left that nobody asked for."""
        if self._rest:
            raise PeerError(f"{self._what} has an unknown field {next(iter(self._rest))[:64]!r}")


def _process(fields: _Fields) -> ProcessKey:
    key = ProcessKey(
        fields.integer("pid", 0, _PID_MAX),
        fields.integer("start_ns", 0, _INT64_MAX),
        fields.text("boot_id", 36, empty=False),
    )
    fields.done()
    return key


def _capture(fields: _Fields) -> CaptureSpec:
    spec = CaptureSpec(
        seconds=fields.number("seconds", 0.001, 86_400.0),
        max_bytes=fields.integer("max_bytes", 1, 1 << 40),
        flows=tuple(_flow(flow) for flow in fields.sequence("flows", MAX_FLOWS)) if fields.has("flows") else (),
    )
    fields.done()
    return spec


def _flow(raw: object) -> Flow:
    if not isinstance(raw, dict):
        raise PeerError("a flow is an object")
    fields = _Fields(raw, "a flow")
    proto = fields.text("proto", 3)
    if proto not in ("tcp", "udp"):
        raise PeerError("`proto` of a flow is tcp or udp")
    flow = Flow(
        proto=proto,
        dst_ip=_address(fields.text("dst_ip", 45)),
        dst_port=fields.integer("dst_port", 0, 65535),
        src_ip=_address(fields.text("src_ip", 45)) if fields.has("src_ip") else None,
        src_port=fields.integer("src_port", 0, 65535) if fields.has("src_port") else None,
    )
    fields.done()
    return flow


def _address(text: str) -> str:
    """Returns an IP address in its one normal spelling: nothing else may reach tcpdump's filter."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise PeerError("a flow's address is no IP address") from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise PeerError("a flow's address has no zone")
        # Of a mapped address the packets on the wire are IPv4.
        return str(address.ipv4_mapped or address)
    return str(address)

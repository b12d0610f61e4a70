"""Writes execray/schema/layout.py from the BTF of a compiled bpf/abi.c: `gen_layout.py ABI.o HEADER... > layout.py`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_INTS = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"}
_SIGNED = {"B": "b", "H": "h", "I": "i", "Q": "q"}

#: Structs that are tables, not records.
_TABLES = ("er_gate", "er_gate_case", "er_gate_work", "er_inline_plan")

Btf = dict[int, dict[str, Any]]


def load_btf(path: str) -> Btf:
    """Returns the object's BTF types by id."""
    out = subprocess.run(["bpftool", "-j", "btf", "dump", "file", path], check=True, capture_output=True).stdout
    return {entry["id"]: entry for entry in json.loads(out)["types"]}


def resolve(btf: Btf, ident: int) -> dict[str, Any]:
    """Follows typedefs and qualifiers."""
    entry = btf[ident]
    while entry["kind"] in ("TYPEDEF", "CONST", "VOLATILE"):
        entry = btf[entry["type_id"]]
    return entry


def size_of(btf: Btf, ident: int) -> int:
    """Returns a type's size in bytes."""
    entry = resolve(btf, ident)
    if entry["kind"] == "ARRAY":
        return int(entry["nr_elems"]) * size_of(btf, entry["type_id"])
    return int(entry["size"])


def offset_lines(btf: Btf, struct: dict[str, Any]) -> str:
    """Returns where the members of a struct are that is too large to be a tuple, and its size."""
    at = {m["name"]: (m["bits_offset"] // 8, size_of(btf, m["type_id"])) for m in struct["members"]}
    body = "".join(f'    "{name}": {where},\n' for name, where in at.items() if not name.startswith("_"))
    name = struct["name"][3:].upper()
    doc = f"#: struct {struct['name']}: member -> offset, size"
    return f"{doc}\n{name}_AT: Final = {{\n{body}}}\n{name}_BYTES: Final = {struct['size']}"


def flatten(btf: Btf, struct: dict[str, Any], base: int, prefix: str) -> list[tuple[str, int, str, int]]:
    """Returns (name, offset, format, size) of every scalar and fixed array, nested structs taken apart.

    What every record begins with, er_header and er_task, is left to the layouts of these two.
    """
    out: list[tuple[str, int, str, int]] = []
    for member in struct["members"]:
        if member["name"] in ("hdr", "task"):
            continue
        kind, offset = resolve(btf, member["type_id"]), base + member["bits_offset"] // 8
        name = prefix + member["name"]
        if kind["kind"] == "STRUCT":
            out += flatten(btf, kind, offset, f"{name}_")
        elif kind["kind"] == "ARRAY" and kind["nr_elems"]:
            size = kind["nr_elems"] * size_of(btf, kind["type_id"])
            out.append((name, offset, f"{size}s", size))
        elif kind["kind"] in ("INT", "ENUM"):
            letter = _INTS[kind["size"], False]
            signed = kind.get("encoding") == "SIGNED"
            out.append((name, offset, _SIGNED[letter] if signed else letter, kind["size"]))
    return out


def struct_lines(btf: Btf, struct: dict[str, Any]) -> str:
    """Returns one NamedTuple and its packer. Padding is skipped, so what is unpacked are the named fields only."""
    fmt, at, body = "<", 0, ""
    for name, offset, code, size in flatten(btf, struct, 0, ""):
        if offset > at:
            fmt += f"{offset - at}x"
        at = offset + size
        if name.startswith("_"):
            fmt += f"{size}x"
            continue
        fmt += code
        body += f"    {name}: {'bytes' if code.endswith('s') else 'int'}\n"
    if struct["size"] > at:
        fmt += f"{struct['size'] - at}x"
    name = struct["name"][3:].replace("_", " ").title().replace(" ", "")
    doc = f'    """struct {struct["name"]}, {struct["size"]} bytes without its tail."""\n\n'
    return f'class {name}(NamedTuple):\n{doc}{body}\n\n{struct["name"][3:].upper()}: Final = Struct("{fmt}")\n'


def enum_lines(entry: dict[str, Any]) -> str:
    """Returns one enum as a dict, without the prefix that its members share in C."""
    values = {value["name"]: value["val"] for value in entry["values"]}
    body = "".join(f'    "{name}": {value},\n' for name, value in values.items())
    return f"{entry['name'].upper()}: Final = {{\n{body}}}"


def main() -> None:
    """Prints the module."""
    btf = load_btf(sys.argv[1])
    header = "".join(Path(name).read_text(encoding="utf-8") for name in sys.argv[2:])
    defines = re.findall(r"^#define (ER_\w+)\s+(\d+)(?:\s*/\*.*)?$", header, re.MULTILINE)
    structs = [e for e in btf.values() if e["kind"] == "STRUCT" and e["name"].startswith("er_")]
    enums = [e for e in btf.values() if e["kind"] == "ENUM" and (e["name"] or "").startswith("er_")]
    print('"""Layouts of the kernel\'s records. Generated from BTF by `make abi`; don\'t edit."""')
    print("\nfrom __future__ import annotations\n\nfrom struct import Struct\nfrom typing import Final, NamedTuple\n\n")
    for name, value in defines:
        print(f"{name}: Final = {value}")
    for entry in sorted(enums, key=lambda e: str(e["name"])):
        print("\n" + enum_lines(entry))
    for entry in sorted(structs, key=lambda e: str(e["name"])):
        if entry["name"] in _TABLES:
            print("\n" + offset_lines(btf, entry))
        else:
            print("\n" + struct_lines(btf, entry))


if __name__ == "__main__":
    main()

"""Writes execray/schema/layout.py from the BTF of a compiled bpf/abi.c: `gen_layout.py ABI.o EVENT.H > layout.py`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

_INTS = {(1, False): "B", (2, False): "H", (4, False): "I", (8, False): "Q"}
_SIGNED = {"B": "b", "H": "h", "I": "i", "Q": "q"}

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
            out.append((name, offset, f"{kind['nr_elems']}s", kind["nr_elems"]))
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
    name = struct["name"][3:]
    doc = f'    """struct {struct["name"]}, {struct["size"]} bytes without its tail."""\n\n'
    return f'class {name.capitalize()}(NamedTuple):\n{doc}{body}\n\n{name.upper()}: Final = Struct("{fmt}")\n'


def enum_lines(entry: dict[str, Any]) -> str:
    """Returns one enum as a dict, without the prefix that its members share in C."""
    values = {value["name"]: value["val"] for value in entry["values"]}
    body = "".join(f'    "{name}": {value},\n' for name, value in values.items())
    return f"{entry['name'].upper()}: Final = {{\n{body}}}"


def main() -> None:
    """Prints the module."""
    btf = load_btf(sys.argv[1])
    header = Path(sys.argv[2]).read_text(encoding="utf-8")
    defines = re.findall(r"^#define (ER_\w+)\s+(\d+)$", header, re.MULTILINE)
    structs = [e for e in btf.values() if e["kind"] == "STRUCT" and e["name"].startswith("er_")]
    enums = [e for e in btf.values() if e["kind"] == "ENUM" and (e["name"] or "").startswith("er_")]
    print('"""Layouts of the kernel\'s records. Generated from BTF by `make abi`; don\'t edit."""')
    print("\nfrom __future__ import annotations\n\nfrom struct import Struct\nfrom typing import Final, NamedTuple\n\n")
    for name, value in defines:
        print(f"{name}: Final = {value}")
    for entry in sorted(enums, key=lambda e: str(e["name"])):
        print("\n" + enum_lines(entry))
    for entry in sorted(structs, key=lambda e: str(e["name"])):
        print("\n" + struct_lines(btf, entry))


if __name__ == "__main__":
    main()

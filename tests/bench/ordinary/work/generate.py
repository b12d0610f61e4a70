"""Writes a C project of so many files: python3 generate.py FOLDER COUNT."""

from __future__ import annotations

import sys
from pathlib import Path

CONFIGURE = """#!/bin/sh
# As generated ones do: tries what the compiler and the host can.
log=config.log; : > $log
for header in stdio.h stdlib.h string.h unistd.h sys/types.h sys/stat.h stdint.h strings.h dlfcn.h pthread.h; do
    echo "#include <$header>" > conftest.c; echo "int main(void){return 0;}" >> conftest.c
    if cc -c conftest.c 2>> $log; then echo "checking for $header... yes"; else echo "checking for $header... no"; fi
    rm -f conftest.*
done
echo "int main(void){return 0;}" > conftest.c; cc conftest.c -o conftest
./conftest && echo "checking whether cc works... yes"
rm -f conftest*; uname -m; test -x /usr/bin/install; expr 1 + 1; sed -n 1p Makefile; grep -c . Makefile
touch config.status; chmod +x config.status
"""
MAKEFILE = """CC = gcc
CFLAGS = -O0 -g
SOURCES = $(wildcard src/*.c)
OBJECTS = $(SOURCES:.c=.o)
all: units libunits.so
units: $(OBJECTS)
\t$(CC) -o $@ $(OBJECTS) -lm
libunits.so: src/unit_1.c
\t$(CC) -shared -fPIC -o $@ $<
units-debug: $(OBJECTS)
\t$(CC) -g -o $@ $(OBJECTS) -lm
debug: units-debug
check: units
\t./units > out.txt && test -s out.txt && echo ok
install: all
\tinstall -D -m 0755 units /usr/local/bin/units
\tinstall -D -m 0644 libunits.so /usr/local/lib/libunits.so
uninstall:
\trm -f /usr/local/bin/units /usr/local/lib/libunits.so
clean:
\trm -f $(OBJECTS) units units-debug libunits.so out.txt
"""


def main() -> None:
    """Writes the files."""
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "configure").write_text(CONFIGURE)
    (folder / "Makefile").write_text(MAKEFILE)
    for number in range(1, count + 1):
        includes = "".join(f"#include <{header}.h>\n" for header in ("stdio", "stdlib", "string"))
        body = f"{includes}int unit_{number}(int x) {{ return x + {number}; }}\n"
        (folder / "src" / f"unit_{number}.c").write_text(body)
    calls = " + ".join(f"unit_{number}(1)" for number in range(1, count + 1))
    names = "".join(f"int unit_{number}(int);\n" for number in range(1, count + 1))
    main = f'#include <stdio.h>\n{names}int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n'
    (folder / "src" / "main.c").write_text(main)


if __name__ == "__main__":
    main()

# C: configured, compiled, tested, installed.
in_project sh ./configure
in_project make --jobs=2
in_project make check
in_project make clean
in_project make --jobs=2 CFLAGS=-O2
as_root make --directory=/home/dev/project install
as_root ldconfig
as_dev ldd /usr/local/bin/units
as_dev units
in_project sh -c 'make debug && gdb --batch -ex "break main" -ex run -ex bt -ex kill ./units-debug'
in_project strace -f -o /tmp/units.trace ./units
in_project sh -c 'tar --create --gzip --file ../project.tar.gz . && cd .. && tar --extract --gzip --file project.tar.gz --directory "$(mktemp -d)"'
in_project objdump --disassemble=main units
in_project nm units
in_project strip units
in_project sh -c 'find . -name "*.o" -print0 | xargs -0 rm --'
as_root make --directory=/home/dev/project uninstall

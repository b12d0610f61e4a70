# Files are read and changed by hand.
on_a_terminal 'vim -u DEFAULTS project/src/unit_2.c' ':normal Goint added;' ':wq'
on_a_terminal 'nano notes.txt' 'a line' '\x18y' ''
on_a_terminal 'vim -u DEFAULTS .bashrc' ':normal Goalias ll="ls -l"' ':wq'
on_a_terminal 'less /etc/services' 'q'
on_a_terminal 'man ls' 'q'
on_a_terminal 'top' 'q'
on_a_terminal 'python3' 'print(1)' 'exit()'
as_dev sh -c 'man -k directory; man --pager=cat tar; man 2 open | head'
as_dev sed -i s/added/changed/ project/src/unit_2.c
as_root sh -c 'printf "127.0.0.1 build\n" >> /etc/hosts'
as_root sed -i 's/^#Port .*/Port 22/' /etc/ssh/sshd_config
as_dev diff -r project/src clone/src
as_dev sh -c 'find project -name "*.c" -newer project/Makefile | sort | head; grep -rn unit_1 project/src | wc -l; wc -l project/src/*.c | tail -1'
as_dev sh -c 'cp -r project copy && mv copy moved && rm -rf moved'

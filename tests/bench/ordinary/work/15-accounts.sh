# People get accounts.
as_root useradd --create-home --shell /bin/bash --groups sudo dev
as_root useradd --create-home --shell /bin/bash guest
as_root sh -c 'echo dev:correct-horse | chpasswd'
as_root usermod --append --groups www-data dev
as_root chage -l dev
as_root passwd --status dev
as_root sh -c 'echo "dev ALL=(ALL) NOPASSWD: ALL" | EDITOR="tee" visudo -f /etc/sudoers.d/dev'
as_root getent passwd dev
as_root id dev
as_root su - dev -c 'id; groups; umask; printenv | head -5'
as_root passwd --lock guest
as_root userdel --remove guest
as_dev sudo -n true
as_dev sudo -n apt-get -s install tree
as_dev sudo -n -i id
as_dev sudo -n -l

# An administrator brings a host up to what it is for.
as_root apt-get update
as_root apt-get install -y --no-install-recommends openssh-server cron logrotate sudo rsync tree nginx-light less nano
as_root dpkg -l
as_root apt-cache search --names-only '^zstd$'
as_root apt-cache policy nginx-light
as_root apt-get -s upgrade
as_root dpkg --verify tree
as_root dpkg -S /usr/bin/tree
as_root apt-mark showmanual
as_root apt-get remove -y tree
as_root apt-get purge -y tree
as_root apt-get install -y --no-install-recommends tree file
as_root apt-get clean
as_root ldconfig
as_root update-alternatives --list editor

#!/bin/bash
# Makes a throw-away copy of the running system and does the work in it: FOLDER, an empty one, and WORK, with the chapters.
# Runs in namespaces of its own (mount, pid, uts); nothing that is written reaches the host, and all ends with this process.
set -e
folder=$1 work=$2
mount -t tmpfs -o size=12g none "$folder"
mkdir "$folder"/{up,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/up,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
# One hierarchy of cgroups, as an ordinary host has it: crun refuses the mixed form.
umount --lazy --recursive sys/fs/cgroup
mount -t cgroup2 none sys/fs/cgroup
for place in run tmp root; do mount -t tmpfs none $place; done
chmod 1777 tmp
chmod 700 root
cp --recursive "$work" run/work
mkdir run/lock run/old
pivot_root . run/old
cd /
umount --lazy /run/old
cp --archive /etc/skel/. /root
hostname build
# What this host was given beside its packages is nobody else's ordinary configuration.
for file in /etc/apt/apt.conf.d/* /etc/profile.d/* /etc/pip.conf /etc/npmrc /usr/sbin/policy-rc.d; do
    [ ! -e "$file" ] || dpkg --search "$file" > /dev/null 2>&1 || rm --force "$file"
done
# A client that brings its certificates along would not know those of this host.
bundle=/etc/ssl/certs/ca-certificates.crt
exec env --ignore-environment PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root SHELL=/bin/bash \
    LANG=C.UTF-8 TERM=dumb DEBIAN_FRONTEND=noninteractive CHAPTERS="$CHAPTERS" PAUSE="$PAUSE" \
    PIP_CERT=$bundle npm_config_cafile=$bundle bash /run/work/all.sh

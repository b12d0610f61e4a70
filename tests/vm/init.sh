#!/bin/sh
# The guest's first process: makes it a system that tests can run on, runs them, and switches it off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run # and /tmp lies on the root, a file system that is mounted whole
ip link set lo up
modprobe -a loop overlay xfs # image.py puts them here
cd /run || exit
/opt/execray/.venv/bin/python /opt/execray/tests/vm/inside.py
echo o >/proc/sysrq-trigger
sleep 60 # it takes a moment, and the kernel panics when its first process ends

# Containers, without a daemon: an image of one program, run, looked at, thrown away.
as_root apt-get install -y --no-install-recommends podman crun busybox-static
as_root sh -c 'mkdir -p image/bin image/etc && cp /bin/busybox image/bin/ && for name in sh ls cat id ps sleep; do ln -s busybox image/bin/$name; done
    echo root:x:0:0::/:/bin/sh > image/etc/passwd && tar --create --directory image . | podman --storage-driver=vfs import - small'
as_root podman --storage-driver=vfs images
as_root podman --storage-driver=vfs run --network=none --cgroups=disabled --rm small /bin/id
as_root podman --storage-driver=vfs run --network=none --cgroups=disabled --rm --volume /var/log:/logs:ro small /bin/ls /logs
as_root podman --storage-driver=vfs run --network=none --cgroups=disabled --name worker --detach small /bin/sleep 20
as_root podman --storage-driver=vfs exec worker /bin/ps
as_root podman --storage-driver=vfs exec worker /bin/cat /etc/passwd
as_root podman --storage-driver=vfs logs worker
as_root podman --storage-driver=vfs stop --time 1 worker
as_root podman --storage-driver=vfs rm worker
as_root podman --storage-driver=vfs rmi small

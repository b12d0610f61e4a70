# From one host to another, which is this one.
as_root ssh-keygen -A
as_root mkdir -p /run/sshd
as_root /usr/sbin/sshd -o ListenAddress=127.0.0.1 -o Port=2222 -o PidFile=/run/sshd.pid
as_dev mkdir -m 700 .ssh
as_dev ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519
as_dev sh -c 'cat .ssh/id_ed25519.pub >> .ssh/authorized_keys; chmod 600 .ssh/authorized_keys'
as_dev sh -c 'printf "Host here\n  HostName 127.0.0.1\n  Port 2222\n  StrictHostKeyChecking accept-new\n" > .ssh/config'
for number in 1 2 3; do
    as_dev ssh here 'uname -a; uptime; df -h /; ls -l'
done
as_dev ssh -tt here 'echo $TERM; tty; exit'
as_dev scp -q project.tar.gz here:copied.tar.gz
as_dev rsync --archive project/src/ here:synced/
as_dev rsync --archive --delete project/src/ here:synced/
as_dev sh -c 'echo "get copied.tar.gz back.tar.gz" | sftp -q -b - here'
in_project git remote add there here:project.git
in_project git push --quiet there main
in_project git fetch --quiet there
as_dev sh -c 'eval "$(ssh-agent)"; ssh-add -q .ssh/id_ed25519; ssh-add -l; ssh here true; ssh-agent -k'
as_dev ssh here 'sudo -n id; sudo -n ls /root'
as_dev timeout 10 sh -c 'ssh -N -L 127.0.0.1:8097:127.0.0.1:2222 here & sleep 1; ssh-keyscan -p 8097 127.0.0.1; kill $!'

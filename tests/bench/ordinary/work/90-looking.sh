# Somebody looks after the host.
as_root ps auxf
as_root top -b -n 1
as_root ss --listening --tcp --processes
as_root ip address
as_root sh -c 'df -h; du -sh /var/log /usr/share; free -m; uptime; who; last -n 3; id; uname -a; hostname'
as_root sh -c 'lsof -p $$ | head; lsblk; mount | head; dmesg | tail -3; sysctl kernel.hostname'
as_root find /etc -newer /etc/hosts -type f
as_root find /usr/bin -perm -4000
as_root grep -rn root /etc/cron.d /etc/pam.d
as_root sh -c 'journalctl --no-pager -n 5; tail -n 5 /var/log/dpkg.log; zcat -f /var/log/*.gz | head -3'
as_root sh -c 'date; nproc; lscpu | head -5; getent hosts localhost; locale'
as_dev sh -c 'ps aux | grep dev; kill -l; history; jobs'
as_dev sh -c 'sleep 30 & kill $!; echo "int main(void){return 0;}" | gcc -x c - -o hello && ./hello'
as_dev gdb --batch -ex 'info proc' -p 1

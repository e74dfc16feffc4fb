#!/bin/sh
# The shell loop: curl for the grant, and `bao kv put` or curl again for Vault.
# usage: loop.sh bao|curl URL ADDRESS TOKEN PREFIX COUNT BAO
set -eu
how=$1 url=$2 prefix=$5 count=$6 bao=$7
export VAULT_ADDR="$3" VAULT_TOKEN="$4" BAO_ADDR="$3" BAO_TOKEN="$4"
number=0
while [ "$number" -lt "$count" ]; do
  token=$(curl -s -d grant_type=password -d "username=svc-$number" -d password=not-a-secret -d client_id=c "$url" |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  if [ "$how" = bao ]; then
    "$bao" kv put -mount=secret "$prefix/t$number" "access_token=$token" >/dev/null
  else
    curl -s -o /dev/null -H "X-Vault-Token: $VAULT_TOKEN" -d "{\"data\":{\"access_token\":\"$token\"}}" \
      "$VAULT_ADDR/v1/secret/data/$prefix/t$number"
  fi
  number=$((number + 1))
done

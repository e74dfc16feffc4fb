#!/bin/sh
# Tells a Vault or an OpenBao of aca-tokend: a policy, and the log-ins that are named.
#
#   BAO_ADDR=… BAO_TOKEN=… sh setup.sh kubernetes|jwt|approle …
#
# It asks nothing, may be run again at any time, and changes nothing that it did not make: a mount that is configured
# already keeps its configuration. No secret is an argument of a command or printed. docs/vault-setup.md has the rest.
set -eu
umask 077

# Each of these may be set in the environment.
: "${CLI:=$(command -v bao || command -v vault || true)}" # the program
: "${ROLE:=aca-tokend}"                         # the name of the policy and of the role of each log-in
: "${KV_MOUNT:=secret}"                         # where the tokens are published: a KV engine of version 2 ...
: "${KV_PREFIX:=aca}"                           # ... and the path below which everything of aca-tokend lies
: "${POLICY_FILE:=}"                            # what `aca-tokend policy` printed; else all below KV_PREFIX
: "${READERS:=}"                                # tokens that get a policy for their readers, with spaces between them
: "${SERVICE_ACCOUNT:=aca-tokend/aca-tokend}"   # namespace/name of the service account of the pods
: "${AUDIENCE:=vault}"                          # the audience of the projected token
: "${ADDRESS:=${BAO_ADDR:-${VAULT_ADDR:-https://vault.example.com:8200}}}" # where the daemon finds the server

: "${KUBERNETES_MOUNT:=kubernetes}"
: "${KUBERNETES_HOST:=}"                        # the API server; left out where the Vault runs in that very cluster
: "${KUBERNETES_CA_FILE:=}"                     # with KUBERNETES_HOST: the CA of the API server, and ...
: "${KUBERNETES_REVIEWER_FILE:=}"               # ... a token that may review others (system:auth-delegator)

: "${JWT_MOUNT:=jwt}"
: "${JWT_DISCOVERY_URL:=}"                      # one of these three: the issuer, where it tells of its keys,
: "${JWT_JWKS_URL:=}"                           # the address of the keys,
: "${JWT_KEYS_FILE:=}"                          # or one public key as PEM
: "${JWT_CA_FILE:=}"                            # the CA of either address, where it is not a public one
: "${JWT_ISSUER:=$JWT_DISCOVERY_URL}"           # the `iss` of the tokens
: "${JWT_SUBJECT:=system:serviceaccount:${SERVICE_ACCOUNT%%/*}:${SERVICE_ACCOUNT#*/}}" # and their `sub`

: "${APPROLE_MOUNT:=approle}"
: "${ROLE_ID_FILE:=role-id}"                    # files that are written
: "${SECRET_ID_FILE:=secret-id}"

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup.sh: $*"; exit 2; }

# Adds PATH of KIND (auth or secrets) unless it is there. $1 kind, $2 path, $3 type, $4 a further option or nothing.
mount() {
    case $1 in auth) where=sys/auth/$2 ;; *) where=sys/mounts/$2 ;; esac
    if type=$("$CLI" read -field=type "$where" 2>/dev/null); then
        [ "$type" = "$3" ] || fail "$1 $2/ is of the type $type, not $3: set another path"
    else
        "$CLI" "$1" enable -path="$2" ${4:+"$4"} "$3" >/dev/null
        say "enabled $1 $2/"
    fi
}

# Whether a mount has a configuration, which then is left alone: others may log in by it.
configured() {
    "$CLI" read "auth/$1/config" >/dev/null 2>&1 || return 1
    say "auth/$1/config is there already, and stays as it is"
}

daemon_policy() {
    if [ -n "$POLICY_FILE" ]; then
        cat "$POLICY_FILE"
    else
        cat <<END
path "$KV_MOUNT/data/$KV_PREFIX/*" {
  capabilities = ["create", "read", "update"]
}
path "$KV_MOUNT/metadata/$KV_PREFIX/*" {
  capabilities = ["update"]
}
END
    fi
}

policies() {
    mount secrets "$KV_MOUNT" kv -version=2
    version=$("$CLI" read -field=options "sys/mounts/$KV_MOUNT")
    [ "$version" = "map[version:2]" ] || fail "secrets $KV_MOUNT/ is not KV version 2, which the readers' policies are for"
    daemon_policy | "$CLI" policy write "$ROLE" - >/dev/null
    say "wrote policy $ROLE"
    for reader in $READERS; do
        printf 'path "%s" {\n  capabilities = ["read"]\n}\n' "$KV_MOUNT/data/$KV_PREFIX/$reader" |
            "$CLI" policy write "aca-reader-$reader" - >/dev/null
        say "wrote policy aca-reader-$reader"
    done
}

kubernetes() {
    mount auth "$KUBERNETES_MOUNT" kubernetes
    if ! configured "$KUBERNETES_MOUNT"; then
        if [ -n "$KUBERNETES_HOST" ]; then
            "$CLI" write "auth/$KUBERNETES_MOUNT/config" kubernetes_host="$KUBERNETES_HOST" \
                kubernetes_ca_cert=@"$KUBERNETES_CA_FILE" token_reviewer_jwt=@"$KUBERNETES_REVIEWER_FILE" \
                disable_local_ca_jwt=true >/dev/null
        else
            "$CLI" write "auth/$KUBERNETES_MOUNT/config" kubernetes_host=https://kubernetes.default.svc >/dev/null
        fi
        say "wrote auth/$KUBERNETES_MOUNT/config"
    fi
    "$CLI" write "auth/$KUBERNETES_MOUNT/role/$ROLE" audience="$AUDIENCE" \
        bound_service_account_namespaces="${SERVICE_ACCOUNT%%/*}" bound_service_account_names="${SERVICE_ACCOUNT#*/}" \
        token_policies="$ROLE" token_ttl=1h token_max_ttl=24h >/dev/null
    say "wrote auth/$KUBERNETES_MOUNT/role/$ROLE"
}

jwt() {
    mount auth "$JWT_MOUNT" jwt
    if ! configured "$JWT_MOUNT"; then
        set -- "auth/$JWT_MOUNT/config" bound_issuer="$JWT_ISSUER"
        if [ -n "$JWT_DISCOVERY_URL" ]; then
            set -- "$@" oidc_discovery_url="$JWT_DISCOVERY_URL" ${JWT_CA_FILE:+oidc_discovery_ca_pem=@"$JWT_CA_FILE"}
        elif [ -n "$JWT_JWKS_URL" ]; then
            set -- "$@" jwks_url="$JWT_JWKS_URL" ${JWT_CA_FILE:+jwks_ca_pem=@"$JWT_CA_FILE"}
        else
            set -- "$@" jwt_validation_pubkeys=@"$JWT_KEYS_FILE"
        fi
        "$CLI" write "$@" >/dev/null
        say "wrote auth/$JWT_MOUNT/config"
    fi
    "$CLI" write "auth/$JWT_MOUNT/role/$ROLE" role_type=jwt user_claim=sub bound_subject="$JWT_SUBJECT" \
        bound_audiences="$AUDIENCE" token_policies="$ROLE" token_ttl=1h token_max_ttl=24h >/dev/null
    say "wrote auth/$JWT_MOUNT/role/$ROLE"
}

approle() {
    mount auth "$APPROLE_MOUNT" approle
    "$CLI" write "auth/$APPROLE_MOUNT/role/$ROLE" token_policies="$ROLE" token_ttl=1h token_max_ttl=24h >/dev/null
    say "wrote auth/$APPROLE_MOUNT/role/$ROLE"
    "$CLI" read -field=role_id "auth/$APPROLE_MOUNT/role/$ROLE/role-id" >"$ROLE_ID_FILE"
    # the one that is there is kept as long as it is good: each further one would be one more that opens the door
    if [ -s "$SECRET_ID_FILE" ] && "$CLI" write -format=json "auth/$APPROLE_MOUNT/role/$ROLE/secret-id/lookup" \
        secret_id=- <"$SECRET_ID_FILE" 2>/dev/null | grep -q '"secret_id_accessor"'; then
        say "the secret id in $SECRET_ID_FILE is good, and stays"
    else
        "$CLI" write -force -field=secret_id "auth/$APPROLE_MOUNT/role/$ROLE/secret-id" >"$SECRET_ID_FILE.new"
        mv "$SECRET_ID_FILE.new" "$SECRET_ID_FILE"
        say "wrote a new secret id to $SECRET_ID_FILE"
    fi
}

# What the configuration needs, on standard output.
table() {
    printf '\n# for the log-in by %s\n[vault.main]\naddress = "%s"\n' "$1" "$ADDRESS"
    namespace=${BAO_NAMESPACE:-${VAULT_NAMESPACE:-}}
    [ -z "$namespace" ] || printf 'namespace = "%s"\n' "$namespace"
    printf '[vault.main.auth]\nmethod = "%s"\n' "$1"
    case $1 in
    approle)
        printf 'role_id = { file = "/run/secrets/aca-tokend/vault/role-id" }       # put %s there\n' "$ROLE_ID_FILE"
        printf 'secret_id = { file = "/run/secrets/aca-tokend/vault/secret-id" }   # and %s\n' "$SECRET_ID_FILE"
        mount=$APPROLE_MOUNT ;;
    *)
        printf 'role = "%s"\njwt_file = "/run/secrets/tokens/vault"   # a projected token, audience %s\n' "$ROLE" "$AUDIENCE"
        case $1 in jwt) mount=$JWT_MOUNT ;; *) mount=$KUBERNETES_MOUNT ;; esac ;;
    esac
    [ "$mount" = "$1" ] || printf 'mount = "%s"\n' "$mount"
}

# Everything that can be known to be wrong, before anything is changed.
check() {
    [ $# -gt 0 ] || fail "name at least one log-in: kubernetes, jwt, approle"
    for method in "$@"; do
        case $method in kubernetes | jwt | approle) ;; *) fail "no log-in by $method: name kubernetes, jwt or approle" ;; esac
    done
    case $SERVICE_ACCOUNT in */*/* | /* | */) false ;; */*) ;; *) false ;; esac ||
        fail "SERVICE_ACCOUNT is $SERVICE_ACCOUNT: write it as namespace/name"
    [ -n "$CLI" ] || fail "neither bao nor vault is on PATH: install one, or set CLI to its path"
    case " $* " in
    *" kubernetes "*)
        if [ -n "$KUBERNETES_HOST" ]; then
            [ -n "$KUBERNETES_CA_FILE" ] && [ -n "$KUBERNETES_REVIEWER_FILE" ] ||
                fail "KUBERNETES_HOST needs KUBERNETES_CA_FILE and KUBERNETES_REVIEWER_FILE beside it"
        fi ;;
    esac
    case " $* " in
    *" jwt "*)
        given=0
        for source in "$JWT_DISCOVERY_URL" "$JWT_JWKS_URL" "$JWT_KEYS_FILE"; do
            [ -z "$source" ] || given=$((given + 1))
        done
        [ "$given" = 1 ] || fail "set one of JWT_DISCOVERY_URL, JWT_JWKS_URL and JWT_KEYS_FILE: $given are set"
        [ -n "$JWT_ISSUER" ] || fail "set JWT_ISSUER to the iss of the tokens" ;;
    esac
    for file in "$POLICY_FILE" "$KUBERNETES_CA_FILE" "$KUBERNETES_REVIEWER_FILE" "$JWT_KEYS_FILE" "$JWT_CA_FILE"; do
        [ -z "$file" ] || [ -r "$file" ] || fail "$file cannot be read"
    done
    "$CLI" token lookup >/dev/null || fail "log in first, by $(basename "$CLI") login or by a token in the environment"
}

check "$@"
policies
for method in "$@"; do "$method"; done
say "done; what goes into the configuration, for one of these log-ins:"
for method in "$@"; do table "$method"; done

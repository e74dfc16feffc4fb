umask 077
bao auth enable approle
bao policy write bookings-reader policy.hcl
bao write auth/approle/role/bookings-reader token_policies=bookings-reader
bao read -field=role_id auth/approle/role/bookings-reader/role-id > role-id
bao write -f -field=secret_id auth/approle/role/bookings-reader/secret-id > secret-id

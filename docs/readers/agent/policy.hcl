path "secret/data/aca/bookings" {
  capabilities = ["read"]
}

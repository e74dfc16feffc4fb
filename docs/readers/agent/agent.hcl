# bao agent -config=/etc/bookings/agent.hcl; with HashiCorp Vault, vault agent takes the same file.
vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/bookings/role-id"
      secret_id_file_path                 = "/etc/bookings/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  static_secret_render_interval = "1m"
}

template {
  contents             = "{{ with secret \"secret/data/aca/bookings\" }}{{ .Data.data | toJSON }}{{ end }}"
  destination          = "/run/bookings/token.json"
  perms                = "0640"
  error_on_missing_key = true

  # left out where the application opens the file for each read
  exec {
    command = ["/usr/local/bin/bookings-reload"]
    timeout = "10s"
  }
}

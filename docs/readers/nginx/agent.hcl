vault {
  address = "https://vault.example.com:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/aca-proxy/role-id"
      secret_id_file_path                 = "/etc/aca-proxy/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  static_secret_render_interval = "1m"
}

template {
  contents = <<EOT
{{ with secret "secret/data/aca/bookings" -}}
proxy_set_header Authorization "{{ .Data.data.authorization }}";
{{ end -}}
EOT

  destination          = "/run/aca-proxy/authorization.conf"
  perms                = "0600"
  error_on_missing_key = true

  exec {
    command = ["nginx", "-s", "reload"]
    timeout = "10s"
  }
}

# What setup.sh beside this folder does, for those who keep their Vault in Terraform or OpenTofu; docs/vault-setup.md
# tells where the two differ. It makes no secret id: Terraform would keep it in its state.

terraform {
  required_version = ">= 1.3"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.0"
    }
  }
}

locals {
  token_ttl     = 3600
  token_max_ttl = 86400
  outside       = var.kubernetes.ca != ""
  subject       = "system:serviceaccount:${var.service_account.namespace}:${var.service_account.name}"
}

resource "vault_policy" "daemon" {
  name   = var.role
  policy = var.policy != "" ? var.policy : <<-END
    path "${var.kv_mount}/data/${var.kv_prefix}/*" {
      capabilities = ["create", "read", "update"]
    }
    path "${var.kv_mount}/metadata/${var.kv_prefix}/*" {
      capabilities = ["update"]
    }
  END
}

resource "vault_policy" "reader" {
  for_each = var.readers

  name   = "aca-reader-${each.key}"
  policy = <<-END
    path "${var.kv_mount}/data/${var.kv_prefix}/${each.key}" {
      capabilities = ["read"]
    }
  END
}

resource "vault_auth_backend" "kubernetes" {
  count = contains(var.methods, "kubernetes") ? 1 : 0

  type = "kubernetes"
  path = var.kubernetes.mount
}

resource "vault_kubernetes_auth_backend_config" "cluster" {
  count = contains(var.methods, "kubernetes") ? 1 : 0

  backend              = vault_auth_backend.kubernetes[0].path
  kubernetes_host      = var.kubernetes.host
  kubernetes_ca_cert   = local.outside ? var.kubernetes.ca : null
  token_reviewer_jwt   = local.outside ? var.kubernetes_reviewer_jwt : null
  disable_local_ca_jwt = local.outside

  lifecycle {
    precondition {
      condition     = local.outside == (var.kubernetes_reviewer_jwt != "")
      error_message = "Set kubernetes.ca and kubernetes_reviewer_jwt together: both for a Vault outside of the cluster, none for one inside."
    }
  }
}

resource "vault_kubernetes_auth_backend_role" "daemon" {
  count = contains(var.methods, "kubernetes") ? 1 : 0

  backend                          = vault_auth_backend.kubernetes[0].path
  role_name                        = var.role
  audience                         = var.audience
  bound_service_account_namespaces = [var.service_account.namespace]
  bound_service_account_names      = [var.service_account.name]
  token_policies                   = [vault_policy.daemon.name]
  token_ttl                        = local.token_ttl
  token_max_ttl                    = local.token_max_ttl
}

resource "vault_jwt_auth_backend" "provider" {
  count = contains(var.methods, "jwt") ? 1 : 0

  type                   = "jwt"
  path                   = var.jwt.mount
  bound_issuer           = var.jwt.issuer != "" ? var.jwt.issuer : var.jwt.discovery_url
  oidc_discovery_url     = var.jwt.discovery_url != "" ? var.jwt.discovery_url : null
  oidc_discovery_ca_pem  = var.jwt.discovery_url != "" && var.jwt.ca != "" ? var.jwt.ca : null
  jwks_url               = var.jwt.jwks_url != "" ? var.jwt.jwks_url : null
  jwks_ca_pem            = var.jwt.jwks_url != "" && var.jwt.ca != "" ? var.jwt.ca : null
  jwt_validation_pubkeys = length(var.jwt.keys) > 0 ? var.jwt.keys : null
}

resource "vault_jwt_auth_backend_role" "daemon" {
  count = contains(var.methods, "jwt") ? 1 : 0

  backend         = vault_jwt_auth_backend.provider[0].path
  role_name       = var.role
  role_type       = "jwt"
  user_claim      = "sub"
  bound_subject   = var.jwt.subject != "" ? var.jwt.subject : local.subject
  bound_audiences = [var.audience]
  token_policies  = [vault_policy.daemon.name]
  token_ttl       = local.token_ttl
  token_max_ttl   = local.token_max_ttl
}

resource "vault_auth_backend" "approle" {
  count = contains(var.methods, "approle") ? 1 : 0

  type = "approle"
  path = var.approle_mount
}

resource "vault_approle_auth_backend_role" "daemon" {
  count = contains(var.methods, "approle") ? 1 : 0

  backend        = vault_auth_backend.approle[0].path
  role_name      = var.role
  token_policies = [vault_policy.daemon.name]
  token_ttl      = local.token_ttl
  token_max_ttl  = local.token_max_ttl
}

output "role_id" {
  description = "For AppRole; it is no secret. `bao write -force -field=secret_id auth/MOUNT/role/ROLE/secret-id` makes what goes with it."
  value       = one(vault_approle_auth_backend_role.daemon[*].role_id)
}

variable "methods" {
  description = "The log-ins to make: kubernetes, jwt, approle."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.methods) > 0 && length(setsubtract(var.methods, ["kubernetes", "jwt", "approle"])) == 0
    error_message = "Name at least one of kubernetes, jwt and approle, and no other."
  }
}

variable "role" {
  description = "The name of the policy and of the role of each log-in."
  type        = string
  default     = "aca-tokend"
}

variable "kv_mount" {
  description = "Where the tokens are published: a KV engine of version 2, which is there already."
  type        = string
  default     = "secret"
}

variable "kv_prefix" {
  description = "The path below which everything of aca-tokend lies."
  type        = string
  default     = "aca"
}

variable "policy" {
  description = "What `aca-tokend policy` printed. Left out, the policy allows all below kv_prefix."
  type        = string
  default     = ""
}

variable "readers" {
  description = "Tokens that get a policy for their readers."
  type        = set(string)
  default     = []
}

variable "service_account" {
  description = "The service account of the pods."
  type        = object({ namespace = string, name = string })
  default     = { namespace = "aca-tokend", name = "aca-tokend" }
}

variable "audience" {
  description = "The audience of the projected token."
  type        = string
  default     = "vault"
}

variable "kubernetes" {
  description = "The mount, and for a Vault outside of the cluster the API server and its CA (PEM)."
  type = object({
    mount = optional(string, "kubernetes")
    host  = optional(string, "https://kubernetes.default.svc")
    ca    = optional(string, "")
  })
  default = {}
}

variable "kubernetes_reviewer_jwt" {
  description = "For a Vault outside of the cluster: a token that may review others (system:auth-delegator). It lies in the state."
  type        = string
  default     = ""
  sensitive   = true
}

variable "jwt" {
  description = "The mount, one of discovery_url, jwks_url and keys (PEM), the CA of either address, and the iss and sub of the tokens."
  type = object({
    mount         = optional(string, "jwt")
    discovery_url = optional(string, "")
    jwks_url      = optional(string, "")
    keys          = optional(list(string), [])
    ca            = optional(string, "")
    issuer        = optional(string, "")
    subject       = optional(string, "")
  })
  default = {}
}

variable "approle_mount" {
  description = "The mount of the log-in by AppRole."
  type        = string
  default     = "approle"
}

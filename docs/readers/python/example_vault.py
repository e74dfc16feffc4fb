import httpx
from aca_token import AcaToken, from_vault

vault = httpx.Client(base_url="https://vault.example.com:8200", timeout=5)
token = AcaToken(from_vault(vault, "secret/data/aca/bookings", token_file="/run/vault/token"))
print(httpx.get("https://aca.example.com/api/engine/v2/users/current", auth=token).raise_for_status().json())

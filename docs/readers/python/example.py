import httpx
from aca_token import AcaToken, from_file

token = AcaToken(from_file("/run/aca/bookings.json"))
with httpx.Client(base_url="https://aca.example.com", auth=token) as aca:
    print(aca.get("/api/engine/v2/users/current").raise_for_status().json())

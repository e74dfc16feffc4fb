"""Asks the API for something every two seconds, with the token that is published, and says what came of it."""

import time

import httpx
from aca_token import AcaToken, from_vault

vault = httpx.Client(base_url="http://openbao:8200", timeout=5)
token = AcaToken(from_vault(vault, "secret/data/aca/bookings", token_file="/run/secrets/reader/token"))
with httpx.Client(base_url="http://acaengine:8080", auth=token, timeout=5) as aca:
    while True:
        try:
            answer = aca.get("/api/engine/v2/users/current")
            print(answer.status_code, answer.json().get("name", ""))
        except (httpx.HTTPError, LookupError, OSError, ValueError) as error:
            print("not yet:", type(error).__name__)
        time.sleep(2)

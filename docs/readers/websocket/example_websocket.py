from aca_realtime import connected
from aca_token import AcaToken, from_file

token = AcaToken(from_file("/run/aca/bookings.json"))
with connected(token, "wss://aca.example.com/control/websocket") as websocket:
    websocket.send("ping")
    print(websocket.recv())

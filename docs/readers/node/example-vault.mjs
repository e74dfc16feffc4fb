import { AcaToken, fromVault } from "./aca-token.mjs";

const aca = new AcaToken(fromVault("https://vault.example.com:8200/v1/secret/data/aca/bookings", "/run/vault/token"));
const response = await aca.fetch("https://aca.example.com/api/engine/v2/users/current");
console.log(await response.json());

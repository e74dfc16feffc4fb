import { AcaToken, fromFile } from "./aca-token.mjs";

const aca = new AcaToken(fromFile("/run/aca/bookings.json"));
const response = await aca.fetch("https://aca.example.com/api/engine/v2/users/current");
console.log(await response.json());

package acatoken_test

import (
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"example.com/bookings/acatoken"
)

func Example() {
	client := &http.Client{Timeout: 30 * time.Second}
	aca := acatoken.New(acatoken.FromFile("/run/aca/bookings.json"))
	// or: acatoken.FromVault(client, "https://vault.example.com:8200/v1/secret/data/aca/bookings", "/run/vault/token")

	request, err := http.NewRequest(http.MethodGet, "https://aca.example.com/api/engine/v2/users/current", nil)
	if err != nil {
		log.Fatal(err)
	}
	response, err := aca.Do(client, request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	io.Copy(os.Stdout, response.Body)
}

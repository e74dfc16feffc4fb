// For each line on standard input: one request through the snippet, and a line with its status and how often it read.
// ask SOURCE URL, where SOURCE is `file PATH` or `vault URL TOKEN_FILE`.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"example.com/bookings/acatoken"
)

func main() {
	arguments := os.Args[1:]
	url := arguments[len(arguments)-1]
	client := &http.Client{Timeout: time.Minute}
	read := acatoken.FromFile(arguments[1])
	if arguments[0] == "vault" {
		read = acatoken.FromVault(client, arguments[1], arguments[2])
	}
	reads := 0
	aca := acatoken.New(func(ctx context.Context) ([]byte, error) {
		reads++
		return read(ctx)
	})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		// a body, so that a request with one is sent again too
		request, err := http.NewRequest(http.MethodGet, url, strings.NewReader(""))
		if err != nil {
			panic(err)
		}
		status := 0
		response, err := aca.Do(client, request)
		if err == nil {
			status = response.StatusCode
			io.Copy(io.Discard, response.Body)
			response.Body.Close()
		} else if fmt.Fprintln(os.Stderr, err); !errors.Is(err, acatoken.ErrNoToken) {
			panic(err)
		}
		fmt.Println(status, reads)
	}
}

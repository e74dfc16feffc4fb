// Package acatoken sends tokens of aca-tokend:
//
//	aca := acatoken.New(acatoken.FromFile("/run/aca/bookings.json"))
//	response, err := aca.Do(http.DefaultClient, request)
package acatoken

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// patience is how often to read again while the next token is not there yet.
const patience = 10 * time.Second

// ErrNoToken means that nothing is published, or that what is published has expired. Wait, and try again.
var ErrNoToken = errors.New("no token")

type token struct {
	AccessToken   string    `json:"access_token"`
	Authorization string    `json:"authorization"`
	ExpiresAt     time.Time `json:"expires_at"`
	RefreshAfter  time.Time `json:"refresh_after"`
}

// Read returns the published document as JSON.
type Read func(context.Context) ([]byte, error)

// Source holds the token of one account, for any number of goroutines.
type Source struct {
	read      Read
	mutex     sync.Mutex
	token     token
	readAgain time.Time
}

// New makes a Source that reads with FromFile or FromVault.
func New(read Read) *Source { return &Source{read: read} }

// Do sends the request with the token; a 401 is tried again once, if there is another token by then.
func (s *Source) Do(client *http.Client, request *http.Request) (*http.Response, error) {
	sent, err := s.current(request.Context())
	if err != nil {
		return nil, err
	}
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", sent.Authorization)
	response, err := client.Do(request)
	if err != nil || response.StatusCode != http.StatusUnauthorized {
		return response, err
	}
	other, err := s.fetch(request.Context())
	if err != nil || other.AccessToken == sent.AccessToken {
		return response, nil
	}
	if request.Body != nil && request.Body != http.NoBody {
		if request.GetBody == nil {
			return response, nil // a stream cannot be sent twice
		}
		if request.Body, err = request.GetBody(); err != nil {
			return response, nil
		}
	}
	response.Body.Close()
	request.Header.Set("Authorization", other.Authorization)
	return client.Do(request)
}

func (s *Source) current(ctx context.Context) (token, error) {
	s.mutex.Lock()
	known, readAgain := s.token, s.readAgain
	s.mutex.Unlock()
	now := time.Now()
	if now.Before(known.ExpiresAt) && now.Before(readAgain) {
		return known, nil
	}
	fresh, err := s.fetch(ctx)
	if err != nil && now.Before(known.ExpiresAt) {
		return known, nil // the place cannot be read just now, and this one still works
	}
	return fresh, err
}

func (s *Source) fetch(ctx context.Context) (token, error) {
	s.mutex.Lock()
	s.readAgain = soonest(s.token) // others go on with this one meanwhile
	s.mutex.Unlock()
	content, err := s.read(ctx)
	if err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrNoToken, err)
	}
	var fresh token
	if err := json.Unmarshal(content, &fresh); err != nil {
		return token{}, fmt.Errorf("%w: the document is not JSON", ErrNoToken)
	}
	if !time.Now().Before(fresh.ExpiresAt) {
		return token{}, fmt.Errorf("%w: the published one expired at %s", ErrNoToken, fresh.ExpiresAt)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.token, s.readAgain = fresh, soonest(fresh)
	if fresh.RefreshAfter.After(s.readAgain) {
		s.readAgain = fresh.RefreshAfter
	}
	return fresh, nil
}

func soonest(t token) time.Time {
	now := time.Now()
	return now.Add(min(patience, t.ExpiresAt.Sub(now)/4))
}

// FromFile reads the JSON file that the daemon writes.
func FromFile(path string) Read {
	return func(context.Context) ([]byte, error) { return os.ReadFile(path) }
}

// FromVault reads a KV version 2 secret, such as https://vault:8200/v1/secret/data/aca/bookings, with the Vault token
// in a file. Give the client a timeout.
func FromVault(client *http.Client, url, tokenFile string) Read {
	return func(ctx context.Context) ([]byte, error) {
		vaultToken, err := os.ReadFile(tokenFile)
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("X-Vault-Token", strings.TrimSpace(string(vaultToken)))
		response, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("Vault answered %s", response.Status)
		}
		var answer struct {
			Data struct{ Data json.RawMessage }
		}
		err = json.NewDecoder(response.Body).Decode(&answer)
		return answer.Data.Data, err
	}
}

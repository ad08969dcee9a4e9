// SPDX-License-Identifier: Apache-2.0

package balance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Ready asks an API server whether it is ready; Serve does so where it is given nothing else. Its certificate is not checked, and nothing secret
// is sent: clients check it themselves, over the connection that they are given. dial makes the connections; nil: as usual.
func Ready(patience time.Duration, dial Dial) func(context.Context, string) error {
	return readyz(patience, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, dial) //nolint:gosec // see above
}

// Dial makes a connection, as net.Dialer's DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Readyz asks the API server at host:port whether it is ready (https://kubernetes.io/docs/reference/using-api/health-checks/), each time over a
// connection of its own. One that answers that a name is needed for that is taken for ready. patience is with the whole of an answer.
func Readyz(patience time.Duration, trust *tls.Config) func(ctx context.Context, server string) error {
	return readyz(patience, trust, nil)
}

func readyz(patience time.Duration, trust *tls.Config, dial Dial) func(ctx context.Context, server string) error {
	client := &http.Client{
		Timeout:       patience,
		Transport:     &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true, DialContext: dial},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context, server string) (err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+server+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, res.Body.Close()) }()
		if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)); err != nil {
			return err
		}
		switch res.StatusCode {
		case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden: // the last two where nobody may ask without a name
			return nil
		}
		return fmt.Errorf("it answers %s", res.Status)
	}
}

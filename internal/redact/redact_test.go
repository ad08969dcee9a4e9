// SPDX-License-Identifier: Apache-2.0

package redact_test

import (
	"encoding/base64"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sealerio/sealer/internal/redact"
)

func TestText(t *testing.T) {
	r := redact.New("hunter2!", "short", "", "a line of a key that is long\nand another line of it here\n}\n")
	for in, want := range map[string]string{
		"the password is hunter2! now":                                                     "the password is [redacted] now",
		base64.StdEncoding.EncodeToString([]byte("hunter2!")) + " x":                       "[redacted] x",
		"a line of a key that is long":                                                     "[redacted]",
		"short } words stay":                                                               "short } words stay",
		"DB_PASSWORD:  s3cr3t-of-mine\nNAME: x":                                            "DB_PASSWORD:  [redacted]\nNAME: x",
		`{"password":"with \"quotes","user":"me"}`:                                         `{"password":"[redacted]","user":"me"}`,
		`{"token":"abc","n":1}`:                                                            `{"token":"[redacted]","n":1}`,
		"kubeadm join --token abcdef.0123456789abcdef --certificate-key=00ff":              "kubeadm join --token [redacted] --certificate-key=[redacted]",
		"--tls-private-key-file=/etc/kubernetes/pki/apiserver.key":                         "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
		"token file: /var/run/secrets/token":                                               "token file: /var/run/secrets/token",
		`log="{\"secret\":\"xyz1234\",\"a\":1}"`:                                           `log="{\"secret\":\"[redacted]\",\"a\":1}"`,
		"abcdef.0123456789abcdef":                                                          "[redacted]",
		"client-key-data: TFMwdExTMUNSVWRKVGlCU1UwRQ==":                                    "client-key-data: [redacted]",
		"x: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQo=":                                  "x: [redacted]",
		"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl rest":                       "[redacted] rest",
		"Authorization: Basic c2VhbGVyOnBhc3N3b3Jk":                                        "Authorization: [redacted] [redacted]",
		"--authorization-mode=Node,RBAC":                                                   "--authorization-mode=Node,RBAC",
		"header Bearer abc.def-123":                                                        "header Bearer [redacted]",
		"https://user:pass@example.com/x and https://example.com/y":                        "https://[redacted]@example.com/x and https://example.com/y",
		"root:$6$saltsalt$hashhashhashhashhash:1":                                          "root:[redacted]:1",
		"-----BEGIN RSA PRIVATE KEY-----\nMIIE\nxyz\n-----END RSA PRIVATE KEY-----\nafter": "[redacted]\nafter",
		"-----BEGIN PRIVATE KEY-----\nMIIE\ncut":                                           "[redacted]",
		"-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----":                     "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
		"error: the token has expired":                                                     "error: the token has expired",
		"Mounts: /var/run/secrets from kube-api (ro)":                                      "Mounts: /var/run/secrets from kube-api (ro)",
	} {
		require.Equal(t, want, r.Text(in))
	}
}

// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// Certificate is one of those that a distribution keeps on a host.
type Certificate struct {
	Name     string // as the distribution's own tools call it, or its file
	NotAfter time.Time
	CA       bool
}

// ParseCertificates reads lines "file: NAME", each followed by certificates in PEM, of which the first counts. host is for messages.
func ParseCertificates(host string, text []byte) ([]Certificate, error) {
	var list []Certificate
	for part := range bytes.SplitSeq(text, []byte("file: ")) {
		name, rest, _ := strings.Cut(string(part), "\n")
		if name == "" {
			continue
		}
		block, _ := pem.Decode([]byte(rest))
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: reading %q: it holds no certificate", host, name)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: reading %q: %w", host, name, err)
		}
		list = append(list, Certificate{Name: name, NotAfter: cert.NotAfter, CA: cert.IsCA})
	}
	return list, nil
}

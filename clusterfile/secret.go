// SPDX-License-Identifier: Apache-2.0

package clusterfile

import "github.com/sealerio/sealer/internal/secret"

// Secret is a password or a passphrase: it shows as "[redacted]" wherever it is printed or logged, and is never marshalled.
type Secret = secret.Text

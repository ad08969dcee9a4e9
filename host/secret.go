// SPDX-License-Identifier: Apache-2.0

package host

import "github.com/sealerio/sealer/internal/secret"

// Secret is a password or a passphrase: it shows as "[redacted]" wherever it is printed, logged or marshalled.
type Secret = secret.Text

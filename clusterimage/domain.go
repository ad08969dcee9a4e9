// SPDX-License-Identifier: Apache-2.0

package clusterimage

import "strings"

// DomainFolder is the first part of the repositories in which one registry has the images of another, DOMAIN/path: docker.io, or
// localhost_5000 for a domain with a port, since repositories have no colons. No domain has an underscore, so that no two meet.
func DomainFolder(domain string) string {
	domain = strings.ToLower(domain)
	if strings.HasPrefix(domain, "[") { // an IPv6 address
		domain = "ipv6-" + strings.NewReplacer("[", "", "]", "", ":", "-").Replace(domain)
	}
	return strings.ReplaceAll(domain, ":", "_")
}

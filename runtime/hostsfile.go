// SPDX-License-Identifier: Apache-2.0

package runtime

import (
	"fmt"
	"strings"
)

// APIServerName is the name of the API server in certificates and kubeconfigs. It stands in
// /etc/hosts on every host, so that what is behind it can change without new certificates.
const APIServerName = "apiserver.cluster.local"

// Marks around our lines in /etc/hosts.
const (
	hostsBegin = "# sealer begin: do not edit, sealer writes these lines"
	hostsEnd   = "# sealer end"
)

// HostsFile is /etc/hosts of h with our block in it: the API server's name, the
// registry's, with the addresses of all that serve it, and the Clusterfile's aliases. Other lines stay as they are.
func HostsFile(current []byte, c *Cluster, h *Host, apiServerIP string) []byte {
	block := []string{hostsBegin, apiServerIP + " " + APIServerName}
	servers := c.RegistryFor(h).Servers
	if len(servers) == 0 && !c.Registry.External {
		servers = []string{c.First().IP()}
	}
	for _, ip := range servers {
		block = append(block, ip+" "+c.Registry.Domain)
	}
	for _, a := range c.File.Aliases {
		block = append(block, fmt.Sprintf("%s %s", a.IP, strings.Join(a.Hostnames, " ")))
	}
	block = append(block, hostsEnd)
	rest := CleanHostsFile(current)
	if len(rest) > 0 && rest[len(rest)-1] != '\n' {
		rest = append(rest, '\n')
	}
	return append(rest, strings.Join(block, "\n")+"\n"...)
}

// NamedAPIServer is the address of the API servers in our block of /etc/hosts; empty where there is none.
func NamedAPIServer(current []byte) string {
	_, block, _ := strings.Cut(string(current), hostsBegin+"\n")
	line, _, _ := strings.Cut(block, "\n")
	ip, _ := strings.CutSuffix(line, " "+APIServerName)
	if ip == line {
		return ""
	}
	return ip
}

// CleanHostsFile is /etc/hosts without our block. A block whose end is missing is
// our first lines only: the user's lines after it are not taken.
func CleanHostsFile(current []byte) []byte {
	text := string(current)
	begin := strings.Index(text, hostsBegin+"\n")
	if begin < 0 {
		return []byte(text)
	}
	after := text[begin+len(hostsBegin)+1:]
	if end := strings.Index(after, hostsEnd+"\n"); end >= 0 {
		return []byte(text[:begin] + after[end+len(hostsEnd)+1:])
	}
	return []byte(text[:begin] + after)
}

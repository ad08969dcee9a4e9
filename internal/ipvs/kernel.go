// SPDX-License-Identifier: Apache-2.0

package ipvs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// MissingError is a kernel that has no IPVS, not as a module either.
type MissingError struct{}

func (*MissingError) Error() string {
	return "the kernel has no IPVS: the module ip_vs cannot be loaded"
}

// Hint says what else there is.
func (*MissingError) Hint() string {
	return "install the kernel's modules on the host (some distributions keep ip_vs in a package of its own), or use the balancer: controlPlaneEndpoint: {balancer: true}"
}

// sysctls is where the kernel keeps IPVS' settings (https://docs.kernel.org/networking/ipvs-sysctl.html), once the module is there.
const sysctls = "/proc/sys/net/ipv4/vs"

// wanted are our settings, which kube-proxy has, too. Firewalls know IPVS' connections by conntrack alone, and a client of a server that is gone
// is told so by expire_nodest_conn: its packets would vanish otherwise.
func wanted() map[string]string {
	return map[string]string{"conntrack": "1", "expire_nodest_conn": "1"}
}

// Settings of the kernel's IPVS, by their names in /proc/sys/net/ipv4/vs.
type Settings map[string]string

// Prepare loads the module and makes the settings that Serve needs; it returns those that were there. The error is a *MissingError where
// the kernel has no IPVS.
func Prepare() (Settings, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	h.Close()
	before := Settings{}
	for name := range wanted() {
		data, err := os.ReadFile(filepath.Join(sysctls, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without
		}
		if err != nil {
			return nil, fmt.Errorf("reading a setting of IPVS: %w", err)
		}
		before[name] = strings.TrimSpace(string(data))
	}
	return before, Settings(wanted()).Set()
}

// Set makes them the kernel's. Those that it does not have are passed over.
func (s Settings) Set() error {
	for name, value := range s {
		file := filepath.Join(sysctls, filepath.Base(name))
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(data)) == value {
			continue
		}
		if err == nil {
			err = os.WriteFile(file, []byte(value), 0o644)
		}
		if err != nil {
			return fmt.Errorf("changing a setting of IPVS: %w", err)
		}
	}
	return nil
}

func loaded() bool {
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
}

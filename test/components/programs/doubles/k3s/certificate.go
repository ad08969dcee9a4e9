// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"
	"sigs.k8s.io/yaml"

	"github.com/sealerio/sealer/test/components/programs/doubles/host"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
)

// certificate as k3s certificate check shows it.
type certificate struct {
	File     string    `json:"file"`
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Usages   []string  `json:"usages"`
	NotAfter time.Time `json:"expiryTime"`
	Residual string    `json:"residualTime"`
	Status   string    `json:"status"`
}

// service is which of --service a file belongs to.
func service(file string) string {
	for _, s := range []struct{ part, name string }{
		{"client-admin", "admin"}, {"kube-apiserver", "api-server"}, {"controller-manager", "controller-manager"}, {"client-controller", "controller-manager"},
		{"scheduler", "scheduler"}, {"supervisor", "supervisor"}, {"k3s-controller", "k3s-controller"}, {"cloud-controller", "cloud-controller"},
		{"etcd", "etcd"}, {"auth-proxy", "auth-proxy"}, {"kubelet", "kubelet"}, {"kube-proxy", "kube-proxy"},
	} {
		if strings.Contains(file, s.part) {
			return s.name
		}
	}
	return ""
}

// leaves are the certificates of the host, without the authorities.
func leaves(f folders, services []string) ([]string, error) {
	var out []string
	for _, root := range []string{f.tls(), f.agent()} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			name := filepath.Base(path)
			if err == nil && !d.IsDir() && strings.HasSuffix(name, ".crt") && !strings.HasSuffix(name, "-ca.crt") &&
				(len(services) == 0 || slices.Contains(services, service(path))) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *program) certificateServices(c *cli.Context) (folders, []string, error) {
	f := folders{c.String("data-dir")}
	if f.data == "" {
		f.data = "/var/lib/rancher/k3s"
	}
	for _, s := range c.StringSlice("service") {
		if !slices.Contains(p.facts.Services, s) {
			return f, nil, fmt.Errorf("%s is not a recognized service", s)
		}
	}
	return f, c.StringSlice("service"), nil
}

func (p *program) certificateCheck(c *cli.Context) error {
	f, services, err := p.certificateServices(c)
	if err != nil {
		return err
	}
	files, err := leaves(f, services)
	if err != nil {
		return err
	}
	list := []certificate{}
	for _, file := range files {
		cert, err := pki.ReadCert(file)
		if err != nil {
			return err
		}
		left := time.Until(cert.NotAfter)
		status := "OK"
		switch {
		case left < 0:
			status = "EXPIRED"
		case left < renewBefore:
			status = "WARNING"
		}
		list = append(list, certificate{File: file, Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), NotAfter: cert.NotAfter, Residual: left.Round(time.Hour).String(), Status: status})
	}
	switch output := c.String("output"); output {
	case "json", "yaml":
		text, err := json.Marshal(list)
		if output == "yaml" && err == nil {
			text, err = yaml.JSONToYAML(text)
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.out, string(text))
		return err
	case "", "text", "table":
		w := tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "FILENAME\tSUBJECT\tUSAGES\tEXPIRES\tRESIDUAL TIME\tSTATUS")
		for _, one := range list {
			fmt.Fprintf(w, "%s\t%s\t\t%s\t%s\t%s\n", filepath.Base(one.File), one.Subject, one.NotAfter.Format(time.RFC3339), one.Residual, one.Status)
		}
		return w.Flush()
	default:
		return fmt.Errorf("invalid output format %s", output)
	}
}

// certificateRotate moves the leaves away, so that the next start makes new ones.
func (p *program) certificateRotate(c *cli.Context) error {
	f, services, err := p.certificateServices(c)
	if err != nil {
		return err
	}
	files, err := leaves(f, services)
	if err != nil {
		return err
	}
	for _, file := range files {
		rel, err := filepath.Rel(f.data, file)
		if err != nil {
			return err
		}
		kept := filepath.Join(f.server(fmt.Sprintf("tls-%d", time.Now().Unix())), rel)
		for _, ext := range []string{".crt", ".key"} {
			from, to := strings.TrimSuffix(file, ".crt")+ext, strings.TrimSuffix(kept, ".crt")+ext
			if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
				return err
			}
			if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		p.log.Info("Rotating certificates for " + service(file) + " service: " + filepath.Base(file))
	}
	p.log.Info("Successfully backed up certificates on " + host.Name() + ", please restart k3s server or agent to rotate certificates")
	return nil
}

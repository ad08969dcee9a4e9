// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sealerio/sealer/test/components/programs/doubles/client"
	"github.com/sealerio/sealer/test/components/programs/doubles/mirror"
	"github.com/sealerio/sealer/test/components/programs/doubles/node"
	"github.com/sealerio/sealer/test/components/programs/doubles/pki"
	"github.com/sealerio/sealer/test/components/programs/doubles/plane"
)

// admin is a client of this host's API, with the administrator's certificate.
func (p *program) admin(c *cli.Context) (*client.Client, folders, error) {
	f := folders{c.String("data-dir")}
	if f.data == "" {
		f.data = "/var/lib/rancher/k3s"
	}
	authority, err := pki.ReadCA(f.tls("server-ca"))
	if err != nil {
		return nil, f, fmt.Errorf("the server has not been started: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(f.tls("client-admin.crt"), f.tls("client-admin.key"))
	if err != nil {
		return nil, f, err
	}
	return client.New(&tls.Config{RootCAs: authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil, "https://127.0.0.1:6443"), f, nil
}

func (p *program) tokenCreate(c *cli.Context) error {
	api, f, err := p.admin(c)
	if err != nil {
		return err
	}
	ttl := 24 * time.Hour
	if c.IsSet("ttl") {
		ttl = c.Duration("ttl")
	}
	t := plane.NewToken(ttl, "authentication", "signing")
	t.Description, t.Groups = c.String("description"), "system:bootstrappers:k3s:default-node-token"
	if err := plane.Keep(c.Context, api, t); err != nil {
		return err
	}
	authority, err := pki.ReadCA(f.tls("server-ca"))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.out, "K10%s::%s\n", pki.Hash(authority.PEM), t)
	return err
}

func (p *program) tokenList(c *cli.Context) error {
	api, _, err := p.admin(c)
	if err != nil {
		return err
	}
	list, err := plane.Tokens(c.Context, api)
	if err != nil {
		return err
	}
	if c.String("output") == "json" {
		out := []map[string]any{}
		for _, t := range list {
			out = append(out, map[string]any{"token": t.ID + ".<redacted>", "description": t.Description, "expires": t.Expires, "usages": t.Usages, "groups": []string{t.Groups}})
		}
		return json.NewEncoder(p.out).Encode(out)
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS")
	for _, t := range list {
		left, expires := "<forever>", "<never>"
		if !t.Expires.IsZero() {
			left, expires = time.Until(t.Expires).Round(time.Minute).String(), t.Expires.Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, left, expires, strings.Join(t.Usages, ","), t.Description, t.Groups)
	}
	return w.Flush()
}

func (p *program) tokenDelete(c *cli.Context) error {
	api, _, err := p.admin(c)
	if err != nil {
		return err
	}
	if !c.Args().Present() {
		return errors.New("missing argument; 'token delete' is missing token")
	}
	for _, t := range c.Args().Slice() {
		id, _, _ := strings.Cut(t, ".")
		if err := plane.Forget(c.Context, api, id); err != nil {
			return err
		}
		fmt.Fprintf(p.out, "bootstrap token %q deleted\n", id)
	}
	return nil
}

func (p *program) tokenGenerate(*cli.Context) error {
	_, err := fmt.Fprintln(p.out, plane.NewToken(0))
	return err
}

// crictl knows the images and, by name only, containers.
func (p *program) crictl(args []string) error {
	flags := flag.NewFlagSet("crictl", flag.ContinueOnError)
	output := flags.String("o", "", "")
	flags.StringVar(output, "output", "", "")
	quiet := flags.Bool("q", false, "")
	var rest []string
	for len(args) > 0 {
		if err := flags.Parse(args); err != nil {
			return err
		}
		if flags.NArg() > 0 {
			rest = append(rest, flags.Arg(0))
			args = flags.Args()[1:]
		} else {
			args = nil
		}
	}
	switch first := strings.Join(rest, " "); {
	case first == "images" || first == "image" || first == "img":
		return p.showImages(*output, *quiet)
	case strings.HasPrefix(first, "inspecti "):
		images, err := node.List("/var/lib/rancher/k3s/agent/containerd/images.json")
		if err != nil {
			return err
		}
		name := mirror.Parse(rest[1]).String()
		if _, ok := images[name]; !ok {
			return fmt.Errorf("no such image %q present", rest[1])
		}
		return json.NewEncoder(p.out).Encode(map[string]any{"status": map[string]any{"id": images[name], "repoTags": []string{name}}})
	case first == "ps" || first == "pods" || first == "version" || first == "info":
		return nil
	default:
		return fmt.Errorf("the double does not model crictl %s", first)
	}
}

func (p *program) showImages(output string, quiet bool) error {
	images, err := node.List("/var/lib/rancher/k3s/agent/containerd/images.json")
	if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(images))
	if output == "json" {
		list := []map[string]any{}
		for _, n := range names {
			list = append(list, map[string]any{"id": images[n], "repoTags": []string{n}})
		}
		return json.NewEncoder(p.out).Encode(map[string]any{"images": list})
	}
	for _, n := range names {
		if quiet {
			n = images[n]
		}
		fmt.Fprintln(p.out, n)
	}
	return nil
}

// ctr lists images, as in: ctr images ls -q.
func (p *program) ctr(args []string) error {
	if slices.Contains(args, "ls") || slices.Contains(args, "list") {
		return p.showImages("", false)
	}
	return fmt.Errorf("the double does not model ctr %s", strings.Join(args, " "))
}

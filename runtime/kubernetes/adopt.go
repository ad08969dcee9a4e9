// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	_ "embed" // for the script
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/sealerio/sealer/host"
	templates "github.com/sealerio/sealer/rootfs-templates"
	"github.com/sealerio/sealer/runtime"
)

//go:embed adopt.sh
var adoptScript string

var _ runtime.Adopter = Distribution{}

// Adopt puts the scripts and the configuration of sealer's own base image in place of the etc/ and scripts/ of an older
// tool, whose templates and scripts would want that tool, and unpacks its programs.
func (Distribution) Adopt(c *runtime.Cluster, h *runtime.Host) []runtime.Step {
	return []runtime.Step{{
		Name: "putting sealer's scripts in place of those of " + c.Older.Tool,
		Key:  c.Digest,
		Do: func(ctx context.Context, log io.Writer) error {
			run := func(stdin string, argv ...string) error {
				return h.Runner.Run(ctx, host.Command{Argv: argv, Stdin: strings.NewReader(stdin), Stdout: log, Stderr: log, Mutates: true})
			}
			if err := run("", "rm", "-rf", path.Join(h.Rootfs, "etc"), path.Join(h.Rootfs, "scripts")); err != nil {
				return err
			}
			files, err := templates.Files(Name)
			if err != nil {
				return err
			}
			for _, f := range files {
				if strings.HasPrefix(f.Name, "etc/") || strings.HasPrefix(f.Name, "scripts/") {
					if err := host.WriteFile(ctx, h.Runner, path.Join(h.Rootfs, f.Name), f.Data, f.Mode); err != nil {
						return err
					}
				}
			}
			return run(adoptScript, "sh", "-s", "--", h.Rootfs)
		},
	}}
}

// adoptable finds the programs that an older tool's image does not bring.
func adoptable(c *runtime.Cluster) []runtime.Problem {
	if c.Older == nil || c.Older.Prepared {
		return nil
	}
	var missing []string
	for _, name := range []string{"kubeadm", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "crictl"} {
		if !c.Older.Programs[name] {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return []runtime.Problem{{
		Check: "programs",
		What:  fmt.Sprintf("the image is one of %s, and neither its bin/ nor its cri/ holds %s", c.Older.Tool, strings.Join(missing, ", ")),
		Fix:   "build an image FROM it that adds them: COPY " + strings.Join(missing, " ") + " bin/",
	}}
}

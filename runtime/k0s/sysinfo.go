// SPDX-License-Identifier: Apache-2.0

package k0s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealerio/sealer/host"
	"github.com/sealerio/sealer/runtime"
)

// UnfitError is a host on which k0s would refuse to start.
type UnfitError struct {
	Host  string
	Found []string // "cgroup version: 1"
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("%s: k0s finds the host unfit: %s", e.Host, strings.Join(e.Found, "; "))
}

// Hint says what to do, or how to go on all the same.
func (e *UnfitError) Hint() string {
	return "mend the host (k0s sysinfo tells all), or have k0s start all the same by the annotation " + ignoreChecks + `: "true" of the Clusterfile's ClusterConfig`
}

// fitStep has k0s look at the host as it does before it starts, where it would only fail again and again.
func fitStep(c *runtime.Cluster, h *runtime.Host) runtime.Step {
	return runtime.Step{
		Name: "having k0s look at the host (k0s sysinfo)",
		Key:  version(c),
		Do: func(ctx context.Context, _ io.Writer) error {
			if ignoresChecks(c) {
				return nil
			}
			args := []string{"sysinfo", "-o", "json"}
			if !isController(h) {
				args = append(args, "--controller=false")
			}
			var out bytes.Buffer
			err := h.Runner.Run(ctx, host.Command{Argv: call(time.Minute, args...), Stdout: &out})
			if exit, failed := errors.AsType[*host.ExitError](err); failed {
				if found := unfit(out.Bytes()); len(found) > 0 {
					return &UnfitError{Host: h.String(), Found: found}
				}
				return exit
			}
			return err
		},
	}
}

// unfit are the findings that keep k0s from starting.
func unfit(answer []byte) []string {
	var list []struct{ Name, Value, Category string }
	if json.Unmarshal(answer, &list) != nil {
		return nil // the command's own message says what is wrong
	}
	var found []string
	for _, e := range list {
		if e.Category == "rejected" || e.Category == "error" {
			found = append(found, strings.TrimSuffix(e.Name+": "+e.Value, ": "))
		}
	}
	return found
}

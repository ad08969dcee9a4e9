// SPDX-License-Identifier: Apache-2.0

// Package kubectl is the real kubectl.
package kubectl

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// Run runs kubectl with the arguments behind its name, against kubeconfig where the user names no other.
func Run(args []string, kubeconfig string) error {
	if os.Getenv("KUBECONFIG") == "" {
		if err := os.Setenv("KUBECONFIG", kubeconfig); err != nil {
			return err
		}
	}
	os.Args = append([]string{"kubectl"}, args...)
	_, _ = logs.GlogSetter(cmd.GetLogVerbosity(os.Args)) // kubectl logs before it knows its flags
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err) // prints and exits
	}
	return nil
}

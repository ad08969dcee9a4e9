// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"maps"

	"github.com/spf13/cobra"

	"github.com/sealerio/sealer/cluster"
	"github.com/sealerio/sealer/clusterfile"
)

func newGen(a *app) *cobra.Command {
	var o runFlags
	cmd := &cobra.Command{
		Use:   "gen IMAGE",
		Short: "Write the Clusterfile of a run",
		Long: `gen prints the Clusterfile that says what a run with the same flags would do: the
hosts, the environment of the image with its defaults, and the documents that the image
brings. Edit it, then give it to sealer run -f. Passwords are never written: they become
references, or questions that the run asks.`,
		Example: `  sealer gen registry.example.com/team/shop:v1 --masters 10.0.0.1 --nodes 10.0.0.2 >Clusterfile
  sealer gen shop:v1 -m 10.0.0.1-10.0.0.3 --user admin --passwd-file pw
  sealer gen shop:v1 -f Clusterfile --env REPLICAS=3 >Clusterfile.whole`,
		Args: exactArgs("IMAGE"),
	}
	f := cmd.Flags()
	f.StringVarP(&o.clusterfile, "Clusterfile", "f", "", "file to complete; flags win over it")
	f.StringVar(&o.name, "name", "", "name of the cluster (default "+clusterfile.DefaultName+")")
	f.StringArrayVarP(&o.env, "env", "e", nil, "value for the image's templates and commands (NAME=VALUE, repeatable)")
	o.addEndpoint(cmd)
	o.add(cmd)
	a.addRegistryFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.gen(cmd, o, args[0]) }
	return cmd
}

func (a *app) gen(cmd *cobra.Command, o runFlags, image string) (err error) {
	o.references = true
	desired, err := o.desired(a, cmd)
	if err != nil {
		return err
	}
	defer a.close(&err)
	_, tag, img, err := a.openImage(cmd, image)
	if err != nil {
		return err
	}
	desired, err = cluster.OverDefaults(desired, img, tag.Name)
	if err != nil {
		return err
	}
	desired.Image = tag.Name
	env := cluster.ImageEnv(img)
	maps.Copy(env, desired.Env)
	desired.Env = env
	text, err := desired.Marshal()
	if err != nil {
		return err
	}
	_, err = a.streams.Out.Write(text)
	return err
}

func newSchema(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of Clusterfiles",
		Long: `schema prints the JSON Schema (draft 2020-12) of one document of a Clusterfile. Editors
that know it complete and check Clusterfiles as they are written.`,
		Example: `  sealer schema >clusterfile.schema.json`,
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := clusterfile.JSONSchema()
			if err != nil {
				return err
			}
			_, err = a.streams.Out.Write(text)
			return err
		},
	}
}

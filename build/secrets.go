// SPDX-License-Identifier: Apache-2.0

package build

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
)

// Secret is a file or a variable of this process that a RUN may ask for. Its value goes from here to the step, and into
// no layer, no log and no cache key. With neither a file nor a variable, it is the variable or the file of the ID's name.
type Secret struct{ ID, File, Env string }

// ParseSecret reads the value of --secret: id=ID[,src=FILE|,env=NAME].
func ParseSecret(s string) (Secret, error) {
	fields, err := parseFields(s)
	if err != nil {
		return Secret{}, fmt.Errorf("secret: %w", err)
	}
	out := Secret{ID: fields["id"], Env: fields["env"]}
	for _, key := range []string{"src", "source"} {
		if fields[key] != "" {
			out.File = fields[key]
		}
	}
	kind := fields["type"]
	for key := range fields {
		if !slices.Contains([]string{"id", "src", "source", "env", "type"}, key) {
			return Secret{}, fmt.Errorf("secret %q: unknown key %q: id, src and env are known", out.ID, key)
		}
	}
	switch {
	case out.ID == "":
		return Secret{}, fmt.Errorf("secret: id= is missing")
	case kind != "" && kind != "file" && kind != "env":
		return Secret{}, fmt.Errorf("secret %q: unknown type %q: file and env are known", out.ID, kind)
	case kind == "env" && out.Env == "": // as docker buildx has it
		out.Env, out.File = out.File, ""
	case out.Env != "" && out.File != "":
		return Secret{}, fmt.Errorf("secret %q: it is either a file (src=) or a variable (env=)", out.ID)
	}
	return out, nil
}

func (s Secret) check() error {
	if s.Env != "" {
		if _, ok := os.LookupEnv(s.Env); !ok {
			return fmt.Errorf("secret %q: the variable %s is not set", s.ID, s.Env)
		}
	}
	return nil
}

func secretProvider(list []Secret) (session.Attachable, error) {
	sources := make([]secretsprovider.Source, len(list))
	for i, s := range list {
		sources[i] = secretsprovider.Source{ID: s.ID, FilePath: s.File, Env: s.Env}
	}
	secrets, err := secretsprovider.NewStore(sources)
	if err != nil {
		return nil, fmt.Errorf("opening secrets: %w", err)
	}
	return secretsprovider.NewSecretProvider(secrets), nil
}

func sshProvider(list []string) (session.Attachable, error) {
	agents := make([]sshprovider.AgentConfig, len(list))
	for i, v := range list {
		id, paths, _ := strings.Cut(v, "=")
		agents[i].ID = id
		if paths != "" {
			agents[i].Paths = strings.Split(paths, ",")
		}
	}
	ssh, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return nil, fmt.Errorf("opening SSH keys: %w", err)
	}
	return ssh, nil
}

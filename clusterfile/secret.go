// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"strings"

	"github.com/sealerio/sealer/internal/secret"
)

// Secret is a password or a passphrase: it shows as "[redacted]" wherever it is printed or logged, and is never
// marshalled. In a Clusterfile it may say where the value is to be had from, as ParseReference reads it.
type Secret = secret.Text

// Reference is where a secret is to be had from.
type Reference struct {
	Source ReferenceSource
	Name   string // of the variable, or the path of the file; empty for a prompt
	Whole  bool   // all lines of it, not the first one alone
	What   string // what is asked for at a prompt, "SSH password": each such thing is asked for once. Empty elsewhere
}

// ReferenceSource is a kind of place where secrets are.
type ReferenceSource string

// The places: an environment variable, a file whose last line break is no part of the secret, the person at the terminal.
const (
	FromEnv    ReferenceSource = "env"
	FromFile   ReferenceSource = "file"
	FromPrompt ReferenceSource = "prompt"
)

func (r Reference) String() string {
	if r.Name == "" {
		return string(r.Source)
	}
	return string(r.Source) + ":" + r.Name
}

// ParseReference reads env:NAME, file:PATH and prompt. Anything else is the secret itself.
func ParseReference(s Secret) (Reference, bool) {
	text := s.Reveal()
	if text == string(FromPrompt) {
		return Reference{Source: FromPrompt}, true
	}
	source, name, ok := strings.Cut(text, ":")
	if !ok || name == "" || source != string(FromEnv) && source != string(FromFile) {
		return Reference{}, false
	}
	return Reference{Source: ReferenceSource(source), Name: name}, true
}

// Place is where something stands in a Clusterfile.
type Place struct {
	File  string
	Line  int // from 1
	Field string
}

func (p Place) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Field) }

// ResolveSecrets puts the secrets in the place of the references to them. Each reference is asked for once; what
// comes back is the secret, even where it looks like a reference.
func (f *File) ResolveSecrets(get func(Reference) (Secret, error)) error {
	known := map[Reference]Secret{}
	resolveAs := func(s *Secret, what string, whole bool) error {
		ref, ok := ParseReference(*s)
		if !ok {
			return nil
		}
		ref.Whole = whole
		if ref.Source == FromPrompt {
			ref.What = what
		}
		value, asked := known[ref]
		if !asked {
			var err error
			if value, err = get(ref); err != nil {
				return fmt.Errorf("getting the secret %q of the Clusterfile: %w", ref, err)
			}
			known[ref] = value
		}
		*s = value
		return nil
	}
	resolve := func(s *Secret, what string) error { return resolveAs(s, what, false) }
	passwords, texts := f.Registry.references()
	for _, s := range passwords {
		if err := resolve(s, "password of the registry"); err != nil {
			return err
		}
	}
	for _, t := range texts {
		s := Secret(*t)
		if err := resolveAs(&s, "certificate of the registry's authority", true); err != nil {
			return err
		}
		*t = s.Reveal()
	}
	if err := resolveAs(&f.Registry.CAKey, "key of the registry's authority", true); err != nil {
		return err
	}
	if f.K3s != nil {
		for _, keys := range []map[string]any{f.K3s.Server, f.K3s.Agent} {
			for name, value := range keys {
				s, ok := value.(Secret)
				if !ok {
					continue
				}
				if err := resolve(&s, name+" of k3s"); err != nil {
					return err
				}
				keys[name] = s
			}
		}
	}
	if f.K0s != nil {
		resolved, err := mapK0sSecrets(f.K0s, func(s Secret) (string, error) {
			err := resolve(&s, "secret of the ClusterConfig")
			return s.Reveal(), err
		})
		if err != nil {
			return err
		}
		f.K0s, _ = resolved.(map[string]any)
	}
	logins := []*SSH{&f.SSH}
	for i := range f.Hosts {
		logins = append(logins, &f.Hosts[i].SSH)
	}
	for _, login := range logins {
		type secret struct {
			at   *Secret
			what string
		}
		secrets := []secret{{&login.Password, "SSH password"}, {&login.KeyPassword, "passphrase of the SSH key"}, {&login.SudoPassword, "password for sudo"}}
		if login.Jump != nil {
			jump := *login.Jump // hosts may share it
			login.Jump = &jump
			secrets = append(secrets, secret{&jump.Password, "SSH password of " + jump.Host}, secret{&jump.KeyPassword, "passphrase of the SSH key for " + jump.Host})
		}
		for _, s := range secrets {
			if err := resolve(s.at, s.what); err != nil {
				return err
			}
		}
	}
	return nil
}

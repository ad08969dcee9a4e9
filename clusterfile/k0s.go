// SPDX-License-Identifier: Apache-2.0

package clusterfile

import "slices"

// k0sSecrets are the fields of k0s' ClusterConfig that the schema calls secrets, by their names: they stand at several depths.
func k0sSecrets() []string { return []string{"authPass", "dataSource", "password"} }

// k0sClear notes secrets that stand in a ClusterConfig in clear.
func (s *source) k0sClear(n *node) {
	for i, value := range n.values {
		if i < len(n.keys) && value.kind == scalarNode && slices.Contains(k0sSecrets(), n.keys[i]) {
			s.secret(n, n.keys[i])
			continue
		}
		s.k0sClear(value)
	}
}

// mapK0sSecrets is a copy of a ClusterConfig with other texts in the place of its secrets.
func mapK0sSecrets(v any, fn func(Secret) (string, error)) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, value := range v {
			var err error
			if text, ok := value.(string); ok && slices.Contains(k0sSecrets(), key) {
				out[key], err = fn(Secret(text))
			} else {
				out[key], err = mapK0sSecrets(value, fn)
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, value := range v {
			var err error
			if out[i], err = mapK0sSecrets(value, fn); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// writtenK0s is the document as a file may hold it: with references to secrets alone.
func writtenK0s(document map[string]any) map[string]any {
	out, _ := mapK0sSecrets(document, func(s Secret) (string, error) { return written(s), nil }) // written has no error
	object, _ := out.(map[string]any)
	return object
}

// Secrets are those that the file holds, other than the hosts' logins.
func (f *File) Secrets() []Secret {
	list := []Secret{f.Registry.Password, f.Registry.CAKey}
	if f.Registry.External != nil {
		list = append(list, f.Registry.External.Password)
	}
	if f.K3s != nil {
		for _, keys := range []map[string]any{f.K3s.Server, f.K3s.Agent} {
			for _, value := range keys {
				if s, ok := value.(Secret); ok {
					list = append(list, s)
				}
			}
		}
	}
	_, _ = mapK0sSecrets(f.K0s, func(s Secret) (string, error) { // it has no error of its own
		list = append(list, s)
		return "", nil
	})
	return list
}

// Public is the file without its secrets.
func (f *File) Public() *File {
	public := *f
	public.Registry.Password, public.Registry.CAKey = "", ""
	if e := public.Registry.External; e != nil {
		open := *e
		open.Password = ""
		public.Registry.External = &open
	}
	if f.K0s != nil {
		public.K0s = writtenK0s(f.K0s)
	}
	if f.K3s != nil {
		public.K3s = &K3s{Server: writtenKeys(f.K3s.Server), Agent: writtenKeys(f.K3s.Agent), IgnoreChecks: f.K3s.IgnoreChecks}
	}
	return &public
}

// SPDX-License-Identifier: Apache-2.0

package k3s

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/sealerio/sealer/test/components/programs/doubles/facts"
	"github.com/sealerio/sealer/test/components/programs/doubles/journal"
)

// settings are the values of all flags: the command line's, else the environment's, else the files', else the default.
type settings struct {
	values map[string][]string // by flag; of flags that are set or have a default
	set    map[string]bool
}

func (s settings) text(name string) string {
	if v := s.values[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (s settings) list(name string) []string { return s.values[name] }
func (s settings) yes(name string) bool      { v, _ := strconv.ParseBool(s.text(name)); return v }
func (s settings) number(name string) int    { v, _ := strconv.Atoi(s.text(name)); return v }

// settings of a command. Unknown keys of the files are logged and left out, as the real one does.
func (p *program) settings(c *cli.Context, command string) (settings, error) {
	s := settings{values: map[string][]string{}, set: map[string]bool{}}
	flags := p.facts.Of(command, p.stamp)
	byName := map[string]facts.Flag{}
	for _, f := range flags {
		byName[f.Name] = f
		for _, a := range f.Aliases {
			byName[a] = f
		}
		if f.Default != "" {
			s.values[f.Name] = []string{f.Default}
		}
	}
	path := c.String("config")
	explicit := path != ""
	if !explicit {
		path = byName["config"].Default
	}
	files, err := p.files(path, explicit)
	if err != nil {
		return s, err
	}
	fromFile := map[string][]string{}
	for _, f := range files {
		if err := p.readFile(f, byName, fromFile); err != nil {
			return s, err
		}
	}
	for name, v := range fromFile {
		s.values[name], s.set[name] = v, true
	}
	for _, f := range flags {
		if !c.IsSet(f.Name) {
			continue
		}
		s.set[f.Name] = true
		switch f.Type {
		case "bool":
			s.values[f.Name] = []string{strconv.FormatBool(c.Bool(f.Name))}
		case "int":
			s.values[f.Name] = []string{strconv.Itoa(c.Int(f.Name))}
		case "duration":
			s.values[f.Name] = []string{c.Duration(f.Name).String()}
		case "stringSlice":
			s.values[f.Name] = c.StringSlice(f.Name)
		default:
			s.values[f.Name] = []string{c.String(f.Name)}
		}
	}
	return s, nil
}

// files are the configuration file and those of the folder beside it, in order.
func (p *program) files(path string, explicit bool) ([]string, error) {
	var out []string
	if _, err := os.Stat(path); err == nil {
		out = append(out, path)
	} else if !errors.Is(err, fs.ErrNotExist) || explicit {
		return nil, fmt.Errorf("failed to read config file %s: %w", path, err)
	}
	more, err := filepath.Glob(path + ".d/*.y*ml")
	if err != nil {
		return nil, err
	}
	slices.Sort(more)
	return append(out, more...), nil
}

func (p *program) readFile(path string, byName map[string]facts.Flag, into map[string][]string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}

	doc, err := ordered(text)
	if err != nil {
		return fmt.Errorf("failed to parse config file %s: %w", path, err)
	}
	entry := journal.Entry{Event: "config", File: path}
	for _, item := range doc {
		key, add := strings.CutSuffix(item.Key, "+")
		entry.Keys = append(entry.Keys, item.Key)
		f, ok := byName[key]
		if !ok {
			entry.Unknown = append(entry.Unknown, key)
			p.log.Warn(fmt.Sprintf("Unknown flag --%s found in config.yaml, skipping", key))
			continue
		}
		for _, v := range item.Values {
			if err := checkValue(f, v); err != nil {
				p.journal.Add(entry)
				return err
			}
		}
		if add {
			into[f.Name] = append(into[f.Name], item.Values...)
		} else {
			into[f.Name] = item.Values
		}
	}
	p.journal.Add(entry)
	return nil
}

func checkValue(f facts.Flag, v string) error {
	var err error
	switch f.Type {
	case "bool":
		_, err = strconv.ParseBool(v)
	case "int":
		_, err = strconv.Atoi(v)
	case "duration":
		_, err = time.ParseDuration(v)
	}
	if err != nil {
		return fmt.Errorf("invalid value %q for flag -%s: parse error", v, f.Name)
	}
	return nil
}

// pair is a key of a configuration file with what it is given, as texts.
type pair struct {
	Key    string
	Values []string
}

// ordered reads a mapping of scalars and lists of scalars.
func ordered(text []byte) ([]pair, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	m := root.Content[0]
	if m.Kind != yaml.MappingNode {
		return nil, errors.New("it is no mapping")
	}
	var out []pair
	for i := 0; i+1 < len(m.Content); i += 2 {
		p := pair{Key: m.Content[i].Value}
		switch v := m.Content[i+1]; v.Kind {
		case yaml.SequenceNode:
			for _, one := range v.Content {
				if one.Kind != yaml.ScalarNode {
					return nil, fmt.Errorf("%s: line %d: a list holds texts only", p.Key, one.Line)
				}
				p.Values = append(p.Values, one.Value)
			}
		case yaml.ScalarNode:
			p.Values = []string{v.Value}
		default:
			return nil, fmt.Errorf("%s: line %d: neither a text nor a list", p.Key, v.Line)
		}
		out = append(out, p)
	}
	return out, nil
}

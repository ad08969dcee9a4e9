// SPDX-License-Identifier: Apache-2.0

package convert

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sealerio/sealer/kubefile"
)

const (
	rootfsDir  = "/rootfs"    // where the toolbox has the cluster's files, and where RUN starts
	scriptsDir = "/dev/pipes" // of documents that are programs; /dev never reaches a layer
)

// run converts RUN. It runs in the toolbox, on the platform that builds, with the rootfs mounted: the rootfs needs no
// shell, and one for another architecture is built without emulation. --in-rootfs is what a Dockerfile's RUN is.
func (c *converter) run(s *stage, i *kubefile.Run, name string) error {
	args, opts := command(i, s.shell)
	switch i.Network {
	case "", "default":
	case "none":
		opts = append(opts, llb.Network(llb.NetModeNone))
	case "host":
		opts = append(opts, llb.Network(llb.NetModeHost))
	default:
		return fmt.Errorf("RUN --network=%s: default, host and none are known", i.Network)
	}
	if i.Security != "" && i.Security != "sandbox" {
		return fmt.Errorf("RUN --security=%s is not supported: a step gets no privileges of the machine that builds", i.Security)
	}
	if proxy := c.o.Scope.Proxy(); len(proxy) > 0 {
		opts = append(opts, llb.WithProxy(proxyEnv(proxy)))
	}
	mounts, err := c.mounts(s, i)
	if err != nil {
		return err
	}
	s.history = append(s.history, i.Text())
	opts = append(opts, mounts...)
	opts = append(opts, llb.AddEnv("SOURCE_DATE_EPOCH", strconv.FormatInt(c.o.Epoch.Unix(), 10)))
	if i.InRootfs {
		return c.runInRootfs(s, i, args, opts, name)
	}
	tool, err := c.tool()
	if err != nil {
		return err
	}
	opts = append(opts, llb.Args(args), llb.Dir(path.Join(rootfsDir, s.dir)))
	if s.user != "" {
		opts = append(opts, llb.User(s.user))
	}
	opts = append(opts, environment(c.toolboxEnv(s, tool))...)
	for _, o := range c.constraints(i.Lines(), name, c.o.Build) {
		opts = append(opts, o)
	}
	s.replace(tool.State.Run(opts...).AddMount(rootfsDir, s.state()))
	return nil
}

func (c *converter) runInRootfs(s *stage, i *kubefile.Run, args []string, opts []llb.RunOption, name string) error {
	opts = append(opts, llb.Args(args), llb.Dir(path.Join("/", s.dir)))
	switch {
	case s.user != "":
		opts = append(opts, llb.User(s.user))
	case s.base != nil && s.base.Config.Config.User != "":
		opts = append(opts, llb.User(s.base.Config.Config.User))
	}
	opts = append(opts, environment(s.scope.RunEnv())...)
	for _, o := range c.constraints(i.Lines(), name, s.platform) {
		opts = append(opts, o)
	}
	s.replace(s.state().Run(opts...).Root())
	return nil
}

// workdir converts WORKDIR. The folder is made, as Dockerfile does it: RUN begins in it.
func (c *converter) workdir(s *stage, i *kubefile.Workdir, name string) {
	dir := path.Join("/", i.Path)
	if !path.IsAbs(i.Path) {
		dir = path.Join("/", s.dir, i.Path)
	}
	s.dir = dir
	if dir == "/" {
		return
	}
	s.history = append(s.history, i.Text())
	s.replace(s.state().File(llb.Mkdir(dir, 0o755, llb.WithParents(true), llb.WithCreatedTime(c.o.Epoch)), c.constraints(i.Lines(), name, s.platform)...))
}

func (c *converter) tool() (Toolbox, error) {
	if c.toolbox == nil {
		t, err := c.o.Toolbox(c.ctx)
		if err != nil {
			return Toolbox{}, err
		}
		c.toolbox = &t
	}
	return *c.toolbox, nil
}

// toolboxEnv is the image's environment and the ARGs. PATH is the toolbox's: the base's would name its own folders.
func (c *converter) toolboxEnv(s *stage, t Toolbox) []string {
	own := slices.DeleteFunc(s.scope.RunEnv(), func(e string) bool {
		v, ok := strings.CutPrefix(e, "PATH=")
		return ok && v == s.basePATH
	})
	return append(slices.Clone(t.Env), own...)
}

func environment(env []string) []llb.RunOption {
	var opts []llb.RunOption
	for _, e := range env {
		k, v, _ := strings.Cut(e, "=")
		opts = append(opts, llb.AddEnv(k, v))
	}
	return opts
}

// command is what is started: a shell with the line, or the words themselves.
func command(i *kubefile.Run, shell []string) ([]string, []llb.RunOption) {
	if !i.Shell {
		return i.Args, nil
	}
	script := i.Script()
	if !i.OnlyHeredoc() || !strings.HasPrefix(script, "#!") {
		if shell == nil {
			shell = []string{"/bin/sh", "-ec"}
		}
		return append(slices.Clone(shell), script), nil
	}
	name := path.Base(i.Heredocs[0].Name)
	st := llb.Scratch().File(llb.Mkfile("/"+name, 0o755, []byte(script)), llb.WithCustomName("[internal] inline document "+name))
	return []string{path.Join(scriptsDir, name)}, []llb.RunOption{llb.AddMount(scriptsDir, st, llb.Readonly)}
}

func proxyEnv(vars map[string]string) llb.ProxyEnv {
	get := func(name string) string {
		if v := vars[name]; v != "" {
			return v
		}
		return vars[strings.ToLower(name)]
	}
	return llb.ProxyEnv{
		HTTPProxy: get("HTTP_PROXY"), HTTPSProxy: get("HTTPS_PROXY"), FTPProxy: get("FTP_PROXY"), NoProxy: get("NO_PROXY"), AllProxy: get("ALL_PROXY"),
	}
}

// mounts converts --mount. Relative targets are below the working directory.
func (c *converter) mounts(s *stage, i *kubefile.Run) ([]llb.RunOption, error) {
	dir := path.Join(rootfsDir, s.dir)
	if i.InRootfs {
		dir = path.Join("/", s.dir)
	}
	var out []llb.RunOption
	for _, m := range i.Mounts {
		opt, err := c.mount(s, m, dir)
		if err != nil {
			return nil, fmt.Errorf("RUN --mount=type=%s: %w", m.Type, err)
		}
		out = append(out, opt)
	}
	return out, nil
}

func (c *converter) mount(s *stage, m *kubefile.Mount, dir string) (llb.RunOption, error) {
	target := m.Target
	if target != "" && !path.IsAbs(target) {
		target = path.Join(dir, target)
	}
	switch m.Type {
	case instructions.MountTypeSecret:
		return secretMount(m, target)
	case instructions.MountTypeSSH:
		return sshMount(m, target), nil
	}
	if path.Clean(target) == "/" || path.Clean(target) == rootfsDir {
		return nil, errors.New("the target cannot be the root of the files")
	}
	switch m.Type {
	case instructions.MountTypeTmpfs:
		return llb.AddMount(target, llb.Scratch(), llb.Tmpfs(llb.TmpfsSize(m.SizeLimit))), nil
	case instructions.MountTypeCache:
		return c.cacheMount(s, m, target)
	case instructions.MountTypeBind:
		return c.bindMount(s, m, target)
	}
	return nil, errors.New("this kind is not known")
}

func (c *converter) bindMount(s *stage, m *kubefile.Mount, target string) (llb.RunOption, error) {
	src := c.context
	if m.From != "" {
		var err error
		if src, err = c.source(s, m.From); err != nil {
			return nil, err
		}
	} else {
		c.fromContext(m.Source)
	}
	opts := []llb.MountOption{llb.ForceNoOutput}
	if m.ReadOnly {
		opts = []llb.MountOption{llb.Readonly}
	}
	if p := path.Join("/", m.Source); p != "/" {
		opts = append(opts, llb.SourcePath(p))
	}
	return llb.AddMount(target, src, opts...), nil
}

func (c *converter) cacheMount(s *stage, m *kubefile.Mount, target string) (llb.RunOption, error) {
	st := llb.Scratch()
	var opts []llb.MountOption
	if m.From != "" {
		var err error
		if st, err = c.source(s, m.From); err != nil {
			return nil, err
		}
	}
	if p := path.Join("/", m.Source); p != "/" {
		opts = append(opts, llb.SourcePath(p))
	} else if m.UID != nil || m.GID != nil || m.Mode != nil {
		mode := fs.FileMode(0o755)
		if m.Mode != nil {
			mode = fs.FileMode(*m.Mode)
		}
		st = st.File(llb.Mkdir("/cache", mode, llb.WithUIDGID(number(m.UID), number(m.GID))), llb.WithCustomName("[internal] cache folder"))
		opts = append(opts, llb.SourcePath("/cache"))
	}
	if m.ReadOnly {
		opts = append(opts, llb.Readonly)
	}
	sharing := llb.CacheMountShared
	switch m.CacheSharing {
	case instructions.MountSharingPrivate:
		sharing = llb.CacheMountPrivate
	case instructions.MountSharingLocked:
		sharing = llb.CacheMountLocked
	}
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
	}
	opts = append(opts, llb.AsPersistentCacheDir(c.o.CacheNamespace+"/"+id, sharing))
	return llb.AddMount(target, st, opts...), nil
}

func secretMount(m *kubefile.Mount, target string) (llb.RunOption, error) {
	id := m.CacheID
	if m.Source != "" {
		id = m.Source
	}
	if id == "" {
		if target == "" {
			return nil, errors.New("it needs an id or a target")
		}
		id = path.Base(target)
	}
	opts := []llb.SecretOption{llb.SecretID(id)}
	if !m.Required {
		opts = append(opts, llb.SecretOptional)
	}
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		opts = append(opts, llb.SecretAsEnvName(name))
	}
	dest := &target
	if target == "" {
		dest = nil
		if m.Env == nil {
			p := "/run/secrets/" + path.Base(id)
			dest = &p
		}
	}
	if m.UID != nil || m.GID != nil || m.Mode != nil {
		mode := 0o400
		if m.Mode != nil {
			mode = int(*m.Mode)
		}
		opts = append(opts, llb.SecretFileOpt(number(m.UID), number(m.GID), mode))
	}
	return llb.AddSecretWithDest(id, dest, opts...), nil
}

func sshMount(m *kubefile.Mount, target string) llb.RunOption {
	opts := []llb.SSHOption{llb.SSHID(m.CacheID)}
	if target != "" {
		opts = append(opts, llb.SSHSocketTarget(target))
	}
	if !m.Required {
		opts = append(opts, llb.SSHOptional)
	}
	if m.UID != nil || m.GID != nil || m.Mode != nil {
		mode := 0o600
		if m.Mode != nil {
			mode = int(*m.Mode)
		}
		opts = append(opts, llb.SSHSocketOpt(target, number(m.UID), number(m.GID), mode))
	}
	return llb.AddSSHSocket(opts...)
}

func number(n *uint64) int {
	if n == nil {
		return 0
	}
	return int(*n)
}

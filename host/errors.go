// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// ExitError is a command that ran and failed.
type ExitError struct {
	Host, Command string
	Code          int    // the exit status; 128 + n where signal n ended it
	Signal        string // "KILL", "TERM", …; empty where it ended by itself
	Output        string // the last 8 KiB of standard error and output, as they came
}

func (e *ExitError) Error() string {
	how := "exit status " + strconv.Itoa(e.Code)
	if e.Signal != "" {
		how = "ended by signal " + e.Signal
	}
	msg := fmt.Sprintf("%s: running %s: %s", e.Host, e.Command, how)
	if out := strings.TrimSpace(e.Output); out != "" {
		msg += "\n" + out
	}
	return msg
}

// UnreachableError is a host to which no connection could be made.
type UnreachableError struct {
	Host string
	Err  error
}

func (e *UnreachableError) Error() string { return fmt.Sprintf("%s: connecting: %v", e.Host, e.Err) }
func (e *UnreachableError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *UnreachableError) Hint() string {
	return "check the address and port, that sshd runs on the host, and that no firewall stands between"
}

// LostError is a connection that broke while a command ran: the command may have done its work, or not.
type LostError struct {
	Host, Command string
	Err           error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("%s: running %s: the connection was lost: %v", e.Host, e.Command, e.Err)
}
func (e *LostError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *LostError) Hint() string {
	return "look whether " + e.Host + " is up and the network to it holds: the host was rebooted, its sshd started anew, or the link cut"
}

// AuthError is a host that let us in by none of the ways tried.
type AuthError struct {
	Host, User string
	Tried      []string // "agent (keys: 2)", "key /root/.ssh/id_ed25519", "password", …
	Skipped    []string // ways asked for that could not be tried, with the reason
	Err        error
}

func (e *AuthError) Error() string {
	msg := fmt.Sprintf("%s: logging in as %q: ", e.Host, e.User)
	if len(e.Tried) == 0 {
		msg += "nothing to log in with"
	} else {
		msg += "refused: tried " + strings.Join(e.Tried, ", ")
	}
	if len(e.Skipped) > 0 {
		msg += "; not tried: " + strings.Join(e.Skipped, ", ")
	}
	return msg
}
func (e *AuthError) Unwrap() error { return e.Err }

// Hint says what to give.
func (e *AuthError) Hint() string {
	return "give a key file, a password, or a running SSH agent that the host accepts for this user"
}

// SudoError is a login that may not become root.
type SudoError struct {
	Host, User string
	Output     string // what sudo said
	Err        error
}

func (e *SudoError) Error() string {
	msg := fmt.Sprintf("%s: becoming root by sudo as %q: %v", e.Host, e.User, e.Err)
	if out := strings.TrimSpace(e.Output); out != "" {
		msg += ": " + out
	}
	return msg
}
func (e *SudoError) Unwrap() error { return e.Err }

// Hint says what sudo needs.
func (e *SudoError) Hint() string {
	return "give the sudo password, or allow this user NOPASSWD sudo for all commands without a terminal, or log in as root"
}

// HostKeyError is a host whose key is in none of the known_hosts files. No credential was sent.
type HostKeyError struct { //nolint:revive // "host key" is the name of the thing
	Host        string
	Address     string // the host as known_hosts writes it: "10.0.0.7", "[10.0.0.7]:2222"
	KeyType     string // "ssh-ed25519", …
	Fingerprint string // "SHA256:…", as ssh-keygen -l prints it
}

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("%s: checking the host key: %s key %s is not known", e.Host, e.KeyType, e.Fingerprint)
}

// Hint says how to accept the key.
func (e *HostKeyError) Hint() string {
	scan := "ssh-keyscan " + e.Address
	if h, port, err := net.SplitHostPort(e.Address); err == nil {
		scan = "ssh-keyscan -p " + port + " " + h
	}
	return "compare the fingerprint with `ssh-keygen -lf` of the host's /etc/ssh/ssh_host_*_key.pub; then accept it with " +
		"--accept-new-host-keys, or with: " + scan + " >> " + filepath.Join("~", ".ssh", "known_hosts")
}

// ChangedHostKeyError is a host that shows another key than the one known for it, or a revoked one. It may
// have been installed anew, or something stands between. No credential was sent, and the key is never accepted by itself.
type ChangedHostKeyError struct {
	Host        string
	KeyType     string
	Fingerprint string
	Known       []string // where the known or revoked keys stand: "/root/.ssh/known_hosts:12"
	Revoked     bool
}

func (e *ChangedHostKeyError) Error() string {
	if e.Revoked {
		return fmt.Sprintf("%s: checking the host key: %s key %s is revoked in %s",
			e.Host, e.KeyType, e.Fingerprint, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("%s: checking the host key: it has CHANGED: the host shows %s key %s, another is known in %s",
		e.Host, e.KeyType, e.Fingerprint, strings.Join(e.Known, ", "))
}

// Hint says what it may mean.
func (e *ChangedHostKeyError) Hint() string {
	return "someone may be listening in; if the host was installed anew, remove the line " + strings.Join(e.Known, " and ") + " and try again"
}

// DigestError is an uploaded file that did not arrive as it should; nothing was put at Path.
type DigestError struct {
	Host, Path, Want string
	Err              error
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%s: writing %q: what arrived is not %s", e.Host, e.Path, e.Want)
}
func (e *DigestError) Unwrap() error { return e.Err }

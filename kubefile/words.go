// SPDX-License-Identifier: Apache-2.0

package kubefile

import "slices"

// Words returns the instructions that Parse accepts, in upper case and sorted.
func Words() []string {
	return []string{
		"ADD", "APP", "APPCMDS", "APPENV", "ARG", "CMD", "CMDS", "CNI", "COPY", "CSI", "ENTRYPOINT", "ENV", "FROM",
		"KUBEVERSION", "LABEL", "LAUNCH", "MAINTAINER", "RUN", "SHELL", "USER", "WORKDIR",
	}
}

// isOwn says whether an instruction is sealer's and no Dockerfile's.
func isOwn(word string) bool {
	return slices.Contains([]string{"APP", "APPCMDS", "APPENV", "CMDS", "CNI", "CSI", "KUBEVERSION", "LAUNCH"}, word)
}

func isSupported(word string) bool { return slices.Contains(Words(), word) }

// refusals are the instructions of a Dockerfile that mean nothing for a
// cluster: why, and what to write instead where there is something.
func refusals() map[string]RefusedError {
	return map[string]RefusedError{
		"EXPOSE": {
			Reason: "a ClusterImage has no container that listens; ports are of the Services in its manifests",
		},
		"HEALTHCHECK": {
			Reason: "no container engine watches a ClusterImage; probes are of the Pods in its manifests",
			Advice: "a CMD such as `kubectl rollout status …` makes sealer run wait",
		},
		"ONBUILD": {
			Reason: "the lines of another image would take part in a build that does not show them",
			Advice: "write the lines in the Kubefile that is built FROM this one",
		},
		"STOPSIGNAL": {
			Reason: "a ClusterImage has no process that could be stopped",
		},
		"VOLUME": {
			Reason: "a ClusterImage has no container that could mount it; volumes are of the Pods in its manifests",
		},
	}
}

// flagWords are the flags that an instruction takes.
func flagWords(word string) []string {
	switch word {
	case "FROM":
		return []string{"platform"}
	case "COPY":
		return []string{"chmod", "chown", "exclude", "from", "link", "parents"}
	case "ADD":
		return []string{"checksum", "chmod", "chown", "exclude", "keep-git-dir", "link", "unpack"}
	case "RUN":
		return []string{"in-rootfs", "mount", "network", "security"}
	case "APP", "CNI", "CSI":
		return []string{"checksum"}
	default:
		return nil
	}
}

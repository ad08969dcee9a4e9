// SPDX-License-Identifier: Apache-2.0

package clusterfile

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// checkLabel refuses what Kubernetes would refuse once the cluster is made. Taints are written by the same rules.
// See https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
func checkLabel(what, key, value string) error {
	if wrong := validation.IsQualifiedName(key); len(wrong) > 0 {
		return fmt.Errorf("the key %q of the %s: %s", key, what, strings.Join(wrong, "; "))
	}
	if wrong := validation.IsValidLabelValue(value); len(wrong) > 0 {
		return fmt.Errorf("the value %q of the %s %s: %s", value, what, key, strings.Join(wrong, "; "))
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package recipe

import "testing"

func TestCheckTag(t *testing.T) {
	for _, test := range []struct {
		tag, version string
		ok           bool
	}{
		{"3.6.8-0", "v3.6.8", true},
		{"v1.14.2", "v1.14.2", true},
		{"v1.36.3", "v1.36.4", false},
		{"3.6.8-0", "", false},
	} {
		err := CheckTag("registry.example/image:"+test.tag, test.tag, test.version)
		if (err == nil) != test.ok {
			t.Errorf("%s and %s: got %v", test.tag, test.version, err)
		}
	}
}

func TestPrograms_Stamps(t *testing.T) {
	stamps := Programs("/src", "amd64", Current, map[string]string{ModuleKubernetes: "v1.36.3"}).Stamps
	for name, want := range map[string]string{"gitVersion": "v1.36.3", "gitMajor": "1", "gitMinor": "36"} {
		if got := stamps["k8s.io/component-base/version."+name]; got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

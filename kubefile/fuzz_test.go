// SPDX-License-Identifier: Apache-2.0

package kubefile_test

import ocispec "github.com/opencontainers/image-spec/specs-go/v1"

func platform(arch string) ocispec.Platform { return ocispec.Platform{OS: "linux", Architecture: arch} }
